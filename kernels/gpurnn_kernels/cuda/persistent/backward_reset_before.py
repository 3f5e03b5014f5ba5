# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""The backward pass of a reset-before GRU: one launch for a direction of a layer, two grid barriers a step.

    dz, dn | dn times W_n: shares of d(r * h) | publish, wait, gather
    dr | dz, dr times W_z, W_r: shares of dh of the step before | publish, wait, gather

Each exchange has a buffer of its own: a block writes to it only after a barrier that all its readers have passed since.
"""

from functools import cache
from typing import Any

from ..compiler import cuda, inlined, types
from ..host.device import Kernel
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.elements import load_float, store_float
from ..intrinsics.memory import afresh, load_shared, load_shared_int, split_index, store_shared
from ..intrinsics.traced import traced_cells
from .backward import SIGNATURE
from .geometry_backward import BackwardGeometry
from .pacing import TICKET_BYTES
from .parts_backward import backward_pacing, make_backward_parts, make_product

CANDIDATE, GATES = 0, 1  # products, and the buffers of their exchanges


@cache
def backward_before_kernel(g: BackwardGeometry) -> Kernel:
    return Kernel(f"persistent_{g.cell}_backward", _backward(g), SIGNATURE, g.threads, 1, cooperative=g.blocks > 1)


def _cells(g: BackwardGeometry, time: Any, arrived: Any) -> tuple[Any, Any, Any]:
    """-> update(s, ...): dz, dn; reset(s, ...): dr; finish(...): dh of the initial state."""
    H, U, N, THREADS = g.hidden, g.units, g.inputs, g.threads
    N_STRIDE, ZR_STRIDE = g.products[CANDIDATE].stride, g.products[GATES].stride
    N_OPERAND, INPUTS, CARRIED, LENGTHS = g.layout.operand, g.layout.inputs, g.layout.carried, g.layout.lengths
    ZR_OPERAND = N_OPERAND + g.rows * N_STRIDE
    Z, R, CAND, H_PREV, DY = 0, 1, 2, g.gates + 1, g.gates + 2
    cells = traced_cells(FAST if g.fast_math else ACCURATE)
    update_grad, reset_grad = cells.gru_update_grad, cells.gru_reset_grad

    @inlined
    def given(item, unit, row):
        return load_shared(INPUTS + (row * N + item) * U + unit)

    @inlined
    def update(s, base, rows, first, B, dh_n, d_gates):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            length = load_shared_int(LENGTHS + row)
            t = time(s, length) if s < length else s
            to = d_gates + types.uint64(4 * ((t * B + base + row) * (3 * H) + first + unit))
            if first + unit < H and s < length:
                dh = given(DY, unit, row)
                if s == length - 1:
                    dh += load_float(dh_n + types.uint64(4 * ((base + row) * H + first + unit)))
                else:
                    dh += arrived(unit, row) + load_shared(CARRIED + i)
                dz_, dn_, past_gates = update_grad(given(Z, unit, row), given(CAND, unit, row), given(H_PREV, unit, row), dh)
                store_shared(ZR_OPERAND + row * ZR_STRIDE + unit, dz_)
                store_shared(N_OPERAND + row * N_STRIDE + unit, dn_)
                store_shared(CARRIED + i, past_gates)
                store_float(to, dz_)
                store_float(to + types.uint64(8 * H), dn_)
            elif first + unit < H:
                for gate in range(3):
                    store_float(to + types.uint64(4 * H * gate), types.float32(0))

    @inlined
    def reset(s, base, rows, first, B, d_gates):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            length = load_shared_int(LENGTHS + row)
            if first + unit < H and s < length:
                dr_, past_gate = reset_grad(given(R, unit, row), given(H_PREV, unit, row), arrived(unit, row))
                store_shared(ZR_OPERAND + row * ZR_STRIDE + U + unit, dr_)
                store_shared(CARRIED + i, load_shared(CARRIED + i) + past_gate)
                at = (time(s, length) * B + base + row) * 3 + 1
                store_float(d_gates + types.uint64(4 * (at * H + first + unit)), dr_)

    @inlined
    def finish(base, rows, first, dh0):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            if load_shared_int(LENGTHS + row) > 0 and first + unit < H:
                to = dh0 + types.uint64(4 * ((base + row) * H + first + unit))
                store_float(to, load_shared(CARRIED + i) + arrived(unit, row))

    return update, reset, finish


def _backward(g: BackwardGeometry) -> Any:
    U, BLOCKS, ROWS, OPERAND = g.units, g.blocks, g.rows, g.layout.operand
    OPERANDS = ROWS * sum(tile.stride for tile in g.products)
    load_n, sweep_n = make_product(g, CANDIDATE)
    load_zr, sweep_zr = make_product(g, GATES)
    pacing = backward_pacing(g)
    time, load_lengths, clear = pacing.time, pacing.load_lengths, pacing.clear
    await_fetches, arrive, wait = pacing.await_fetches, pacing.arrive, pacing.wait
    fetch_inputs, publish, gather, arrived, pass_gradient = make_backward_parts(g, pacing)
    update, reset, finish = _cells(g, time, arrived)

    def kernel(
        w, gates, extra, prev, prev0, dy, dh_n, dc_n, d_gates, dh0, dc0, lengths, exchange, tickets,
        T, B, prev_step, prev_row, dy_step, dy_row, slice_rows,
    ):  # fmt: skip
        first = cuda.blockIdx.y * U
        base = cuda.blockIdx.x * slice_rows
        rows = max(min(slice_rows, B - base), 0)
        ticket = tickets + types.uint64(cuda.blockIdx.x * TICKET_BYTES)

        n_weights, zr_weights = load_n(w, first), load_zr(w, first)
        clear(OPERAND, OPERANDS)
        load_lengths(lengths, T, base, rows)
        cuda.syncthreads()
        pass_gradient(dh_n, dh0, base, rows, first)
        if T > 0:
            fetch_inputs(T - 1, gates, extra, prev, prev0, dy, B, base, rows, first, prev_step, prev_row, dy_step, dy_row)

        for done in range(T):
            s = T - 1 - done
            if done > 0:
                gather(exchange, GATES)
            await_fetches()
            cuda.syncthreads()
            update(s, base, rows, first, B, dh_n, d_gates)
            cuda.syncthreads()
            sweep_n(n_weights)
            cuda.syncthreads()
            publish(exchange, CANDIDATE)
            arrive(ticket)
            wait(ticket, (2 * done + 1) * BLOCKS)
            gather(exchange, CANDIDATE)
            await_fetches()
            cuda.syncthreads()
            reset(s, base, rows, first, B, d_gates)
            cuda.syncthreads()
            sweep_zr(zr_weights)
            cuda.syncthreads()
            publish(exchange, GATES)
            arrive(ticket)
            if s > 0:
                fetch_inputs(s - 1, gates, extra, prev, prev0, dy, B, base, rows, first, prev_step, prev_row, dy_step, dy_row)
            wait(ticket, (2 * done + 2) * BLOCKS)
        if T > 0:
            gather(exchange, GATES)
        await_fetches()
        cuda.syncthreads()
        finish(base, rows, first, dh0)

    return kernel
