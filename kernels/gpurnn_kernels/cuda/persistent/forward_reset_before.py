# mypy: disable-error-code="no-untyped-def"
"""The forward pass of a reset-before GRU: one launch for a direction of a layer, two grid barriers a step.

h of the last step to shared memory | W_r h | r * h | arrive | W_z h meanwhile | wait
r * h of all units to shared memory | W_n (r * h) | cells | y | arrive | prefetch W_x x | wait
"""

from typing import Any

from ..compiler import cuda, inlined, types
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.elements import elements_of, store_float
from ..intrinsics.memory import load_shared_int
from ..intrinsics.traced import traced_activations, traced_cells
from .geometry_forward import ForwardGeometry
from .pacing import make_pacing, over_cells
from .parts import make_parts, make_product

uint64, float32 = types.uint64, types.float32

Z, R, N = 0, 1, 2  # gates, and their products


def _cells(g: ForwardGeometry, time: Any, pre_activation: Any) -> tuple[Any, Any]:
    """Makes reset: r * h of the block's units, for the other blocks to read; and update: h."""
    H, WIDTH, ALONE, ITEM = g.hidden, g.width, g.alone, g.operand.item
    H_AT, RESET, LENGTHS = g.layout.h, g.layout.reset, g.layout.lengths
    elements = elements_of(ITEM)
    store_element, load_h, store_h = elements.store, elements.load_shared, elements.store_shared
    choice = FAST if g.fast_math else ACCURATE
    cells, activations = traced_cells(choice), traced_activations(choice)
    gru_reset, gru_update, sigmoid, tanh = cells.gru_reset, cells.gru_update, activations.sigmoid, activations.tanh

    @inlined
    def reset(a, s, row, unit, base, first):
        length, u, b = load_shared_int(LENGTHS + row), first + unit, base + row
        if s < length:
            r_ = pre_activation(R, R, 0, unit, row)
            rh = gru_reset(r_, load_h(H_AT + row * WIDTH, u))
            if ALONE:
                store_h(RESET + row * WIDTH, unit, rh)
            else:
                store_element(a.exchange + uint64(ITEM * (b * H + u)), rh)
            if a.gates != 0:
                at = time(s, length) * a.B + b
                store_float(a.gates + uint64(4 * ((at * 3 + R) * H + u)), sigmoid(r_))
                store_element(a.extra + uint64(ITEM * (at * H + u)), rh)
        elif a.gates != 0:
            store_element(a.extra + uint64(ITEM * ((s * a.B + b) * H + u)), float32(0))

    @inlined
    def update(a, s, row, unit, base, first):
        length, u, b = load_shared_int(LENGTHS + row), first + unit, base + row
        if s < length:
            z_, n_ = pre_activation(Z, Z, 0, unit, row), pre_activation(N, N, 0, unit, row)
            h = gru_update(z_, n_, load_h(H_AT + row * WIDTH, u))
            t = time(s, length)
            store_element(a.y + uint64(t * a.y_step + b * a.y_row + ITEM * u), h)
            if s == length - 1:
                store_element(a.h_n + uint64(ITEM * (b * H + u)), h)
            if ALONE:
                store_h(H_AT + row * WIDTH, u, h)
            if a.gates != 0:
                to = a.gates + uint64(4 * ((t * a.B + b) * 3 * H + u))
                store_float(to, sigmoid(z_))
                store_float(to + uint64(8 * H), tanh(n_))

    return over_cells(g, reset), over_cells(g, update)


def reset_before_forward_kernel(g: ForwardGeometry) -> Any:
    """Makes kernel(a), a: `ForwardArguments`."""
    H, BLOCKS, ROWS, WIDTH, ALONE, ITEM = g.hidden, g.blocks, g.rows, g.width, g.alone, g.operand.item
    H_AT, RESET = g.layout.h, g.layout.reset
    (load_z, sweep_z), (load_r, sweep_r), (load_n, sweep_n) = (make_product(g, n, range(n, n + 1)) for n in (Z, R, N))
    pacing = make_pacing(g)
    standing, time, load_lengths, clear, _, _, await_fetches, arrive, wait = pacing
    load_biases, pass_state, fetch_projection, fetch_rows, fetch_h, pre_activation, _ = make_parts(g, pacing)
    reset_cells, update_cells = _cells(g, time, pre_activation)

    def kernel(a):
        first, base, rows, ticket = standing(a)
        z_weights, r_weights, n_weights = load_z(a.W_h, first), load_r(a.W_h, first), load_n(a.W_h, first)
        clear(H_AT, ROWS * WIDTH)
        clear(RESET, ROWS * WIDTH)
        load_lengths(a, base, rows)
        load_biases(a, first)
        cuda.syncthreads()
        pass_state(a.h0, a.h_n, base, rows, first, -1)
        fetch_projection(a, 0, base, rows, first)
        if ALONE:
            fetch_h(a, 0, base, rows)

        for s in range(a.T):
            if not ALONE:
                fetch_h(a, s, base, rows)
            await_fetches()
            cuda.syncthreads()
            sweep_r(r_weights, H_AT)
            cuda.syncthreads()
            reset_cells(a, s, base, rows, first)
            arrive(ticket)
            sweep_z(z_weights, H_AT)
            wait(ticket, (2 * s + 1) * BLOCKS)
            if not ALONE:
                fetch_rows(RESET, s, a.exchange + uint64(ITEM * H * base), rows)
                await_fetches()
                cuda.syncthreads()
            sweep_n(n_weights, RESET)
            cuda.syncthreads()
            update_cells(a, s, base, rows, first)
            if s + 1 < a.T:
                arrive(ticket)
                fetch_projection(a, s + 1, base, rows, first)
                wait(ticket, (2 * s + 2) * BLOCKS)

    return kernel
