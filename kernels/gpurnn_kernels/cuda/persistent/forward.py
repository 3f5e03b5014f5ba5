# mypy: disable-error-code="no-untyped-def"
"""The forward pass of an LSTM or a reset-after GRU: one launch for a direction of a layer, one grid barrier a step.

h of the step before is read from y itself: each address of y is written once, before the barrier that its readers pass.

    h of the last step to shared memory | products, summed over lanes | cells | y | arrive | prefetch W_x x | wait
"""

from typing import Any

from ..compiler import cuda, inlined, types
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.elements import elements_of, store_float
from ..intrinsics.memory import load_shared, load_shared_int, store_shared
from ..intrinsics.traced import traced_activations, traced_cells
from .geometry_forward import ForwardGeometry
from .pacing import make_pacing, over_cells
from .parts import Parts, make_parts, make_product

uint64 = types.uint64


def _cell(g: ForwardGeometry, parts: Parts) -> Any:
    """Makes cell(a, local unit, local row, unit, row, at, last) -> h: gates, state and what is saved.

    at: the place of the time and row in arrays (T, B, ..); last: whether the step is the row's last.
    """
    H, U, WIDTH, ITEM = g.hidden, g.units, g.width, g.operand.item
    H_AT, PROJECTED, CELLS, BIASES, G = g.layout.h, g.layout.projected, g.layout.cells, g.layout.biases, g.num_gates
    elements = elements_of(ITEM)
    load_h, store_element = elements.load_shared, elements.store
    choice = FAST if g.fast_math else ACCURATE
    cells, activations = traced_cells(choice), traced_activations(choice)
    lstm_cell, lstm_gates, gru_candidate, gru_update = cells.lstm_cell, cells.lstm_gates, cells.gru_candidate, cells.gru_update
    sigmoid, tanh = activations.sigmoid, activations.tanh
    pre_activation, recurrent = parts.pre_activation, parts.recurrent

    @inlined
    def lstm(a, unit, row, u, b, at, last):
        f_, i_ = pre_activation(0, 0, 0, unit, row), pre_activation(1, 0, 1, unit, row)
        o_, g_ = pre_activation(2, 0, 2, unit, row), pre_activation(3, 0, 3, unit, row)
        word = CELLS + row * U + unit
        h, c = lstm_cell(f_, i_, o_, g_, load_shared(word))
        store_shared(word, c)
        if last:
            store_element(a.c_n + uint64(ITEM * (b * H + u)), c)
        if a.gates != 0:
            f, i, o, g_ = lstm_gates(f_, i_, o_, g_)
            to = a.gates + uint64(4 * (at * (4 * H) + u))
            store_float(to, f)
            store_float(to + uint64(4 * H), i)
            store_float(to + uint64(8 * H), o)
            store_float(to + uint64(12 * H), g_)
            store_float(a.extra + uint64(4 * (at * H + u)), c)
        return h

    @inlined
    def gru_after(a, unit, row, u, b, at, last):
        z_, r_ = pre_activation(0, 0, 0, unit, row), pre_activation(1, 0, 1, unit, row)
        q = recurrent(0, 2, 3, unit, row)
        n_x = load_shared(PROJECTED + (row * G + 2) * U + unit) + load_shared(BIASES + 2 * U + unit)
        n_ = gru_candidate(r_, q, n_x)
        h = gru_update(z_, n_, load_h(H_AT + row * WIDTH, u))
        if a.gates != 0:
            to = a.gates + uint64(4 * (at * (3 * H) + u))
            store_float(to, sigmoid(z_))
            store_float(to + uint64(4 * H), sigmoid(r_))
            store_float(to + uint64(8 * H), tanh(n_))
            store_float(a.extra + uint64(4 * (at * H + u)), q)
        return h

    return lstm if g.has_c else gru_after


def forward_kernel(g: ForwardGeometry) -> Any:
    """Makes kernel(a), a: `ForwardArguments`."""
    H, U, BLOCKS, ROWS, WIDTH, ITEM = g.hidden, g.units, g.blocks, g.rows, g.width, g.operand.item
    LSTM, ALONE, REVERSE = g.has_c, g.alone, g.reverse
    H_AT, CELLS, LENGTHS = g.layout.h, g.layout.cells, g.layout.lengths
    load_weights, sweep = make_product(g, 0, range(g.num_gates))
    pacing = make_pacing(g)
    standing, time, load_lengths, clear, _, _, await_fetches, arrive, wait = pacing
    parts = make_parts(g, pacing)
    load_biases, pass_state, fetch_projection, _, fetch_h, _, _ = parts
    cell = _cell(g, parts)
    elements = elements_of(ITEM)
    load_element, store_element, store_h = elements.load, elements.store, elements.store_shared

    @inlined
    def past_the_end(a, s, row, unit, base, first):
        """Saves c at a time past the row's length: that of the step before, in the order of steps."""
        c = load_shared(CELLS + row * U + unit)
        if REVERSE:
            c = load_element(a.c0 + uint64(ITEM * ((base + row) * H + first + unit)))
        store_float(a.extra + uint64(4 * ((s * a.B + base + row) * H + first + unit)), c)

    @inlined
    def step(a, s, row, unit, base, first):
        length, u, b = load_shared_int(LENGTHS + row), first + unit, base + row
        if s < length:
            t, last = time(s, length), s == length - 1
            h = cell(a, unit, row, u, b, t * a.B + b, last)
            store_element(a.y + uint64(t * a.y_step + b * a.y_row + ITEM * u), h)
            if last:
                store_element(a.h_n + uint64(ITEM * (b * H + u)), h)
            if ALONE:
                store_h(H_AT + row * WIDTH, u, h)
        elif LSTM and a.gates != 0:
            past_the_end(a, s, row, unit, base, first)

    step_cells = over_cells(g, step)

    def kernel(a):
        first, base, rows, ticket = standing(a)
        weights = load_weights(a.W_h, first)
        clear(H_AT, ROWS * WIDTH)
        load_lengths(a, base, rows)
        load_biases(a, first)
        cuda.syncthreads()
        if LSTM:
            pass_state(a.c0, a.c_n, base, rows, first, CELLS)
        pass_state(a.h0, a.h_n, base, rows, first, -1)
        fetch_projection(a, 0, base, rows, first)
        if ALONE:
            fetch_h(a, 0, base, rows)

        for s in range(a.T):
            if not ALONE:
                fetch_h(a, s, base, rows)
            await_fetches()
            cuda.syncthreads()
            sweep(weights, H_AT)
            cuda.syncthreads()
            step_cells(a, s, base, rows, first)
            if s + 1 < a.T:
                arrive(ticket)
                fetch_projection(a, s + 1, base, rows, first)
                wait(ticket, (s + 1) * BLOCKS)

    return kernel
