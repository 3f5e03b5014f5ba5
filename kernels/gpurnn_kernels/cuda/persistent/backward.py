# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""The backward pass of an LSTM or a reset-after GRU: one launch for a direction of a layer, one grid barrier a step.

Steps run from each row's last to its first. At step s a block has dh of its units from the blocks' shares, and makes

    gate gradients, to global memory for the weights' gradients | times its rows of W_h: shares of dh of the step before |
    shares to the blocks that own the units | arrive | prefetch | wait | gather
"""

from functools import cache
from typing import Any

from ..compiler import cuda, inlined, types
from ..host.device import Kernel
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.elements import load_float, store_float
from ..intrinsics.memory import afresh, load_shared, load_shared_int, split_index, store_shared
from ..intrinsics.traced import traced_cells
from .geometry_backward import BackwardGeometry
from .pacing import TICKET_BYTES
from .parts_backward import backward_pacing, make_backward_parts, make_product

ADDRESS, SIZE = types.uint64, types.int64
SIGNATURE = (ADDRESS,) * 14 + (SIZE,) * 7


@cache
def backward_kernel(g: BackwardGeometry) -> Kernel:
    return Kernel(f"persistent_{g.cell}_backward", _backward(g), SIGNATURE, g.threads, 1, cooperative=g.blocks > 1)


def _cell_gradient(g: BackwardGeometry) -> Any:
    """-> cell(local unit, local row, dh, carried, address in d_gates): fills the operand, gives what is carried on."""
    H, U, G, N = g.hidden, g.units, g.gates, g.inputs
    OPERAND, STRIDE, INPUTS = g.layout.operand, g.products[0].stride, g.layout.inputs
    cells = traced_cells(FAST if g.fast_math else ACCURATE)
    lstm_cell_grad, update_grad, candidate_grad = cells.lstm_cell_grad, cells.gru_update_grad, cells.gru_candidate_grad

    @inlined
    def given(item, unit, row):
        return load_shared(INPUTS + (row * N + item) * U + unit)

    @inlined
    def keep(gate, value, unit, row, to):
        store_shared(OPERAND + row * STRIDE + gate * U + unit, value)
        store_float(to + types.uint64(4 * H * gate), value)

    @inlined
    def lstm(unit, row, dh, dc, to):
        f, i, o, g_ = given(0, unit, row), given(1, unit, row), given(2, unit, row), given(3, unit, row)
        c, c_prev = given(G, unit, row), given(G + 1, unit, row)
        df_, di_, do_, dg_, dc_prev = lstm_cell_grad(f, i, o, g_, c_prev, c, dh, dc)
        keep(0, df_, unit, row, to)
        keep(1, di_, unit, row, to)
        keep(2, do_, unit, row, to)
        keep(3, dg_, unit, row, to)
        return dc_prev

    @inlined
    def gru_after(unit, row, dh, carried, to):
        z, r, n = given(0, unit, row), given(1, unit, row), given(2, unit, row)
        q, h_prev = given(G, unit, row), given(G + 1, unit, row)
        dz_, dn_, past_gates = update_grad(z, n, h_prev, dh)
        dr_, dq = candidate_grad(r, q, dn_)
        keep(0, dz_, unit, row, to)
        keep(1, dr_, unit, row, to)
        keep(2, dq, unit, row, to)
        store_float(to + types.uint64(12 * H), dn_)
        return past_gates

    return lstm if g.cell == "lstm" else gru_after


def _backward(g: BackwardGeometry) -> Any:
    H, U, DG, N = g.hidden, g.units, g.gradients, g.inputs
    BLOCKS, THREADS, ROWS, STRIDE, LSTM = g.blocks, g.threads, g.rows, g.products[0].stride, g.cell == "lstm"
    OPERAND, INPUTS, CARRIED, LENGTHS, DY = g.layout.operand, g.layout.inputs, g.layout.carried, g.layout.lengths, g.gates + 2
    load_weights, sweep = make_product(g, 0)
    pacing = backward_pacing(g)
    time, load_lengths, clear = pacing.time, pacing.load_lengths, pacing.clear
    await_fetches, arrive, wait = pacing.await_fetches, pacing.arrive, pacing.wait
    fetch_inputs, publish, gather, arrived, pass_gradient = make_backward_parts(g, pacing)
    cell = _cell_gradient(g)

    @inlined
    def step_back(s, base, rows, first, B, dh_n, dc_n, d_gates):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            length = load_shared_int(LENGTHS + row)
            t = time(s, length) if s < length else s
            to = d_gates + types.uint64(4 * ((t * B + base + row) * (DG * H) + first + unit))
            if first + unit >= H:
                pass
            elif s < length:
                state_at = types.uint64(4 * ((base + row) * H + first + unit))
                dh, carried = load_shared(INPUTS + (row * N + DY) * U + unit), types.float32(0)
                if s == length - 1:
                    dh += load_float(dh_n + state_at)
                    if LSTM:
                        carried = load_float(dc_n + state_at)
                else:
                    carried = load_shared(CARRIED + i)
                    dh += arrived(unit, row)
                    if not LSTM:
                        dh += carried
                store_shared(CARRIED + i, cell(unit, row, dh, carried, to))
            else:
                for gate in range(DG):
                    store_float(to + types.uint64(4 * H * gate), types.float32(0))

    @inlined
    def finish(base, rows, first, dh0, dc0):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            if load_shared_int(LENGTHS + row) > 0 and first + unit < H:
                state_at = types.uint64(4 * ((base + row) * H + first + unit))
                dh = arrived(unit, row)
                if LSTM:
                    store_float(dc0 + state_at, load_shared(CARRIED + i))
                else:
                    dh += load_shared(CARRIED + i)
                store_float(dh0 + state_at, dh)

    def kernel(
        w, gates, extra, prev, prev0, dy, dh_n, dc_n, d_gates, dh0, dc0, lengths, exchange, tickets,
        T, B, prev_step, prev_row, dy_step, dy_row, slice_rows,
    ):  # fmt: skip
        first = cuda.blockIdx.y * U
        base = cuda.blockIdx.x * slice_rows
        rows = max(min(slice_rows, B - base), 0)
        ticket = tickets + types.uint64(cuda.blockIdx.x * TICKET_BYTES)

        weights = load_weights(w, first)
        clear(OPERAND, ROWS * STRIDE)
        load_lengths(lengths, T, base, rows)
        cuda.syncthreads()
        pass_gradient(dh_n, dh0, base, rows, first)
        if LSTM:
            pass_gradient(dc_n, dc0, base, rows, first)
        if T > 0:
            fetch_inputs(T - 1, gates, extra, prev, prev0, dy, B, base, rows, first, prev_step, prev_row, dy_step, dy_row)

        for done in range(T):
            s = T - 1 - done
            if done > 0:
                gather(exchange, done & 1)
            await_fetches()
            cuda.syncthreads()
            step_back(s, base, rows, first, B, dh_n, dc_n, d_gates)
            cuda.syncthreads()
            sweep(weights)
            cuda.syncthreads()
            publish(exchange, (done + 1) & 1)
            arrive(ticket)
            if s > 0:
                fetch_inputs(s - 1, gates, extra, prev, prev0, dy, B, base, rows, first, prev_step, prev_row, dy_step, dy_row)
            wait(ticket, (done + 1) * BLOCKS)
        if T > 0:
            gather(exchange, T & 1)
        await_fetches()
        cuda.syncthreads()
        finish(base, rows, first, dh0, dc0)

    return kernel
