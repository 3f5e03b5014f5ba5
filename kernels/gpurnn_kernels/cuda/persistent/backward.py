# mypy: disable-error-code="no-untyped-def"
"""The backward pass of an LSTM or a reset-after GRU: one launch for a direction of a layer, one grid barrier a step.

Steps run from each row's last to its first. At step s a block has dh of its units from the blocks' shares, and makes

    gate gradients, to global memory for the weights' gradients | times its rows of W_h: shares of dh of the step before |
    shares to the blocks that own the units | arrive | prefetch | wait | gather
"""

from typing import Any

from ..compiler import cuda, inlined, types
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.elements import load_float, store_float
from ..intrinsics.memory import load_shared, load_shared_int, store_shared
from ..intrinsics.traced import traced_cells
from .geometry_backward import BackwardGeometry
from .pacing import make_pacing, over_cells
from .parts_backward import make_backward_parts, make_product

uint64, float32 = types.uint64, types.float32


def _cell_gradient(g: BackwardGeometry, given: Any) -> Any:
    """Makes cell(local unit, local row, dh, carried, address in d_gates): fills the operand, gives what is carried on."""
    H, U, EXTRA, PREV = g.hidden, g.units, g.num_gates, g.num_gates + 1
    OPERAND, STRIDE = g.layout.operand, g.products[0].stride
    cells = traced_cells(FAST if g.fast_math else ACCURATE)
    lstm_cell_grad, update_grad, candidate_grad = cells.lstm_cell_grad, cells.gru_update_grad, cells.gru_candidate_grad

    @inlined
    def keep(gate, value, unit, row, to):
        store_shared(OPERAND + row * STRIDE + gate * U + unit, value)
        store_float(to + uint64(4 * H * gate), value)

    @inlined
    def lstm(unit, row, dh, dc, to):
        f, i, o, g_ = given(0, unit, row), given(1, unit, row), given(2, unit, row), given(3, unit, row)
        c, c_prev = given(EXTRA, unit, row), given(PREV, unit, row)
        df_, di_, do_, dg_, dc_prev = lstm_cell_grad(f, i, o, g_, c_prev, c, dh, dc)
        keep(0, df_, unit, row, to)
        keep(1, di_, unit, row, to)
        keep(2, do_, unit, row, to)
        keep(3, dg_, unit, row, to)
        return dc_prev

    @inlined
    def gru_after(unit, row, dh, carried, to):
        z, r, n = given(0, unit, row), given(1, unit, row), given(2, unit, row)
        q, h_prev = given(EXTRA, unit, row), given(PREV, unit, row)
        dz_, dn_, past_gates = update_grad(z, n, h_prev, dh)
        dr_, dq = candidate_grad(r, q, dn_)
        keep(0, dz_, unit, row, to)
        keep(1, dr_, unit, row, to)
        keep(2, dq, unit, row, to)
        store_float(to + uint64(12 * H), dn_)
        return past_gates

    return lstm if g.has_c else gru_after


def backward_kernel(g: BackwardGeometry) -> Any:
    """Makes kernel(a), a: `BackwardArguments`."""
    H, U, DG, DY = g.hidden, g.units, g.num_gradients, g.num_gates + 2
    BLOCKS, ROWS, STRIDE, LSTM = g.blocks, g.rows, g.products[0].stride, g.has_c
    OPERAND, CARRIED, LENGTHS = g.layout.operand, g.layout.carried, g.layout.lengths
    load_weights, sweep = make_product(g, 0)
    pacing = make_pacing(g)
    standing, time, load_lengths, clear, _, _, await_fetches, arrive, wait = pacing
    fetch_inputs, publish, gather, arrived, pass_gradient, given = make_backward_parts(g, pacing)
    cell = _cell_gradient(g, given)

    @inlined
    def step_back(a, s, row, unit, base, first):
        length, word = load_shared_int(LENGTHS + row), CARRIED + row * U + unit
        t = time(s, length) if s < length else s
        to = a.d_gates + uint64(4 * ((t * a.B + base + row) * (DG * H) + first + unit))
        if s < length:
            state_at = uint64(4 * ((base + row) * H + first + unit))
            dh, carried = given(DY, unit, row), float32(0)
            if s == length - 1:
                dh += load_float(a.dh_n + state_at)
                if LSTM:
                    carried = load_float(a.dc_n + state_at)
            else:
                carried = load_shared(word)
                dh += arrived(unit, row)
                if not LSTM:
                    dh += carried
            store_shared(word, cell(unit, row, dh, carried, to))
        else:
            for gate in range(DG):
                store_float(to + uint64(4 * H * gate), float32(0))

    @inlined
    def leave(a, s, row, unit, base, first):
        if load_shared_int(LENGTHS + row) > 0:
            state_at, word = uint64(4 * ((base + row) * H + first + unit)), CARRIED + row * U + unit
            dh = arrived(unit, row)
            if LSTM:
                store_float(a.dc0 + state_at, load_shared(word))
            else:
                dh += load_shared(word)
            store_float(a.dh0 + state_at, dh)

    step_cells, finish = over_cells(g, step_back), over_cells(g, leave)

    def kernel(a):
        first, base, rows, ticket = standing(a)
        weights = load_weights(a.W_h, first)
        clear(OPERAND, ROWS * STRIDE)
        load_lengths(a, base, rows)
        cuda.syncthreads()
        pass_gradient(a.dh_n, a.dh0, base, rows, first)
        if LSTM:
            pass_gradient(a.dc_n, a.dc0, base, rows, first)
        if a.T > 0:
            fetch_inputs(a, a.T - 1, base, rows, first)

        for done in range(a.T):
            s = a.T - 1 - done
            if done > 0:
                gather(a.exchange, done & 1)
            await_fetches()
            cuda.syncthreads()
            step_cells(a, s, base, rows, first)
            cuda.syncthreads()
            sweep(weights)
            cuda.syncthreads()
            publish(a.exchange, (done + 1) & 1)
            arrive(ticket)
            if s > 0:
                fetch_inputs(a, s - 1, base, rows, first)
            wait(ticket, (done + 1) * BLOCKS)
        if a.T > 0:
            gather(a.exchange, a.T & 1)
        await_fetches()
        cuda.syncthreads()
        finish(a, 0, base, rows, first)

    return kernel
