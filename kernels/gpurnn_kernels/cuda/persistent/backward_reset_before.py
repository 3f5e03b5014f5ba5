# mypy: disable-error-code="no-untyped-def"
"""The backward pass of a reset-before GRU: one launch for a direction of a layer, two grid barriers a step.

    dz, dn | dn times W_n: shares of d(r * h) | publish, wait, gather
    dr | dz, dr times W_z, W_r: shares of dh of the step before | publish, wait, gather

Each exchange has a buffer of its own: a block writes to it only after a barrier that all its readers have passed since.
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

CANDIDATE, GATES = 0, 1  # products, and the buffers of their exchanges
Z, R, N = 0, 1, 2


def _cells(g: BackwardGeometry, time: Any, arrived: Any, given: Any) -> tuple[Any, Any, Any]:
    """Makes update: dz, dn; reset: dr; and finish: dh of the initial state."""
    H, U, H_PREV, DY = g.hidden, g.units, g.num_gates + 1, g.num_gates + 2
    N_STRIDE, ZR_STRIDE = g.products[CANDIDATE].stride, g.products[GATES].stride
    N_OPERAND, CARRIED, LENGTHS = g.layout.operand, g.layout.carried, g.layout.lengths
    ZR_OPERAND = N_OPERAND + g.rows * N_STRIDE
    cells = traced_cells(FAST if g.fast_math else ACCURATE)
    update_grad, reset_grad = cells.gru_update_grad, cells.gru_reset_grad

    @inlined
    def update(a, s, row, unit, base, first):
        length, word = load_shared_int(LENGTHS + row), CARRIED + row * U + unit
        t = time(s, length) if s < length else s
        to = a.d_gates + uint64(4 * ((t * a.B + base + row) * (3 * H) + first + unit))
        if s < length:
            dh = given(DY, unit, row)
            if s == length - 1:
                dh += load_float(a.dh_n + uint64(4 * ((base + row) * H + first + unit)))
            else:
                dh += arrived(unit, row) + load_shared(word)
            dz_, dn_, past_gates = update_grad(given(Z, unit, row), given(N, unit, row), given(H_PREV, unit, row), dh)
            store_shared(ZR_OPERAND + row * ZR_STRIDE + unit, dz_)
            store_shared(N_OPERAND + row * N_STRIDE + unit, dn_)
            store_shared(word, past_gates)
            store_float(to, dz_)
            store_float(to + uint64(8 * H), dn_)
        else:
            for gate in range(3):
                store_float(to + uint64(4 * H * gate), float32(0))

    @inlined
    def reset(a, s, row, unit, base, first):
        length, word = load_shared_int(LENGTHS + row), CARRIED + row * U + unit
        if s < length:
            dr_, past_gate = reset_grad(given(R, unit, row), given(H_PREV, unit, row), arrived(unit, row))
            store_shared(ZR_OPERAND + row * ZR_STRIDE + U + unit, dr_)
            store_shared(word, load_shared(word) + past_gate)
            at = (time(s, length) * a.B + base + row) * 3 + R
            store_float(a.d_gates + uint64(4 * (at * H + first + unit)), dr_)

    @inlined
    def leave(a, s, row, unit, base, first):
        if load_shared_int(LENGTHS + row) > 0:
            to = a.dh0 + uint64(4 * ((base + row) * H + first + unit))
            store_float(to, load_shared(CARRIED + row * U + unit) + arrived(unit, row))

    return over_cells(g, update), over_cells(g, reset), over_cells(g, leave)


def reset_before_backward_kernel(g: BackwardGeometry) -> Any:
    """Makes kernel(a), a: `BackwardArguments`."""
    BLOCKS, OPERAND, OPERANDS = g.blocks, g.layout.operand, g.rows * sum(tile.stride for tile in g.products)
    load_n, sweep_n = make_product(g, CANDIDATE)
    load_zr, sweep_zr = make_product(g, GATES)
    pacing = make_pacing(g)
    standing, time, load_lengths, clear, _, _, await_fetches, arrive, wait = pacing
    fetch_inputs, publish, gather, arrived, pass_gradient, given = make_backward_parts(g, pacing)
    update, reset, finish = _cells(g, time, arrived, given)

    def kernel(a):
        first, base, rows, ticket = standing(a)
        n_weights, zr_weights = load_n(a.W_h, first), load_zr(a.W_h, first)
        clear(OPERAND, OPERANDS)
        load_lengths(a, base, rows)
        cuda.syncthreads()
        pass_gradient(a.dh_n, a.dh0, base, rows, first)
        if a.T > 0:
            fetch_inputs(a, a.T - 1, base, rows, first)

        for done in range(a.T):
            s = a.T - 1 - done
            if done > 0:
                gather(a.exchange, GATES)
            await_fetches()
            cuda.syncthreads()
            update(a, s, base, rows, first)
            cuda.syncthreads()
            sweep_n(n_weights)
            cuda.syncthreads()
            publish(a.exchange, CANDIDATE)
            arrive(ticket)
            wait(ticket, (2 * done + 1) * BLOCKS)
            gather(a.exchange, CANDIDATE)
            await_fetches()
            cuda.syncthreads()
            reset(a, s, base, rows, first)
            cuda.syncthreads()
            sweep_zr(zr_weights)
            cuda.syncthreads()
            publish(a.exchange, GATES)
            arrive(ticket)
            if s > 0:
                fetch_inputs(a, s - 1, base, rows, first)
            wait(ticket, (2 * done + 2) * BLOCKS)
        if a.T > 0:
            gather(a.exchange, GATES)
        await_fetches()
        cuda.syncthreads()
        finish(a, 0, base, rows, first)

    return kernel
