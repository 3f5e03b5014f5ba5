# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""The forward pass of an LSTM or a reset-after GRU: one launch for a direction of a layer, one grid barrier a step.

h of the step before is read from y itself: each address of y is written once, before the barrier that its readers pass.

    h of the last step to shared memory | products, summed over lanes | cells | y | arrive | prefetch W_x x | wait
"""

from functools import cache
from typing import Any

from ..compiler import cuda, inlined, types
from ..host.device import Kernel
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.elements import elements_of, store_float
from ..intrinsics.memory import afresh, load_shared, load_shared_int, split_index, store_shared
from ..intrinsics.tile_weights import gate_rows
from ..intrinsics.traced import traced_activations, traced_cells
from .geometry import Geometry
from .pacing import TICKET_BYTES
from .parts import forward_pacing, make_parts

ADDRESS, SIZE = types.uint64, types.int64
SIGNATURE = (ADDRESS,) * 13 + (SIZE,) * 5


@cache
def forward_kernel(g: Geometry) -> Kernel:
    return Kernel(f"persistent_{g.cell}_forward", _forward(g), SIGNATURE, g.threads, 1, cooperative=g.blocks > 1)


def _cell_update(g: Geometry, product: Any) -> Any:
    """-> cell(s, local row, local unit, row, t, ...): gates, state and what is saved; gives h."""
    H, U, G, WIDTH = g.hidden, g.units, g.gates, g.width
    elements = elements_of(g.operand.item)
    load_h, store_element = elements.load_shared, elements.store
    H_AT, SUMS, PROJECTED, CELLS, BIASES = g.layout.h, g.layout.sums, g.layout.projected, g.layout.cells, g.layout.biases
    choice = FAST if g.fast_math else ACCURATE
    cells, activations = traced_cells(choice), traced_activations(choice)
    sigmoid, tanh = activations.sigmoid, activations.tanh
    lstm_cell, lstm_gates, gru_candidate, gru_update = cells.lstm_cell, cells.lstm_gates, cells.gru_candidate, cells.gru_update

    @inlined
    def pre_activation(gate, unit, row):
        return load_shared(PROJECTED + (row * G + gate) * U + unit) + product(SUMS, gate, gate, unit, row)

    @inlined
    def lstm(unit, row, at, first, gates, saved, last, c_n, state_at):
        f_, i_ = pre_activation(0, unit, row), pre_activation(1, unit, row)
        o_, g_ = pre_activation(2, unit, row), pre_activation(3, unit, row)
        word = CELLS + row * U + unit
        h, c = lstm_cell(f_, i_, o_, g_, load_shared(word))
        store_shared(word, c)
        if last:
            store_element(c_n + state_at, c)
        if gates != 0:
            f, i, o, g_ = lstm_gates(f_, i_, o_, g_)
            to = gates + types.uint64(4 * (at * (4 * H) + first + unit))
            store_float(to, f)
            store_float(to + types.uint64(4 * H), i)
            store_float(to + types.uint64(8 * H), o)
            store_float(to + types.uint64(12 * H), g_)
            store_float(saved + types.uint64(4 * (at * H + first + unit)), c)
        return h

    @inlined
    def gru_after(unit, row, at, first, gates, saved, last, c_n, state_at):
        z_, r_ = pre_activation(0, unit, row), pre_activation(1, unit, row)
        q = product(SUMS, 2, 3, unit, row)
        n_x = load_shared(PROJECTED + (row * G + 2) * U + unit) + load_shared(BIASES + 2 * U + unit)
        n_ = gru_candidate(r_, q, n_x)
        h = gru_update(z_, n_, load_h(H_AT + row * WIDTH, first + unit))
        if gates != 0:
            to = gates + types.uint64(4 * (at * (3 * H) + first + unit))
            store_float(to, sigmoid(z_))
            store_float(to + types.uint64(4 * H), sigmoid(r_))
            store_float(to + types.uint64(8 * H), tanh(n_))
            store_float(saved + types.uint64(4 * (at * H + first + unit)), q)
        return h

    return lstm if g.cell == "lstm" else gru_after


def _forward(g: Geometry) -> Any:
    H, U, G = g.hidden, g.units, g.gates
    BLOCKS, THREADS, GROUPS, ROWS, WIDTH = g.blocks, g.threads, g.groups, g.rows, g.width
    LSTM, ALONE, REVERSE = g.cell == "lstm", g.blocks == 1, g.reverse
    WARP_ROWS, SPAN, SPAN_WORDS, PITCH = g.tile.warp_rows, g.tile.span, g.tile.span_words, g.tile.pitch
    TURNS, TURN_ROWS, ITEM = g.turns, g.tiles * g.tile.batch, g.operand.item
    WARP_WEIGHTS, SPLIT_WORDS, IN_SHARED = g.tile.shared_words, g.split_words, g.tile.shared_words > 0
    H_AT, SUMS, CELLS, LENGTHS = g.layout.h, g.layout.sums, g.layout.cells, g.layout.lengths
    load_weights, fill_weights, sweep = g.tile_ops(gate_rows(g, range(G)))
    pacing = forward_pacing(g)
    parts = make_parts(g, pacing)
    time, load_lengths, clear = pacing.time, pacing.load_lengths, pacing.clear
    await_fetches, arrive, wait = pacing.await_fetches, pacing.arrive, pacing.wait
    load_biases, pass_state, fetch_projection, fetch_h = (
        parts.load_biases,
        parts.pass_state,
        parts.fetch_projection,
        parts.fetch_h,
    )
    update = _cell_update(g, parts.product)
    elements = elements_of(ITEM)
    load_element, store_element, store_h = elements.load, elements.store, elements.store_shared

    @inlined
    def keep_cell(unit, row, at, first, saved, c0, base):
        """c at a time past the row's length: that of the step before, in the order of steps."""
        c = load_shared(CELLS + row * U + unit)
        if REVERSE:
            c = load_element(c0 + types.uint64(ITEM * ((base + row) * H + first + unit)))
        store_float(saved + types.uint64(4 * (at * H + first + unit)), c)

    def kernel(xp, w, b, b_hn, h0, c0, y, h_n, c_n, lengths, gates, saved, tickets, T, B, y_step, y_row, slice_rows):
        tid = cuda.threadIdx.x
        warp, lane = split_index(tid, 32)
        split, group = split_index(warp, GROUPS)
        first = cuda.blockIdx.y * U
        base = cuda.blockIdx.x * slice_rows
        rows = max(min(slice_rows, B - base), 0)
        ticket = tickets + types.uint64(cuda.blockIdx.x * TICKET_BYTES)

        weights = load_weights(w, first, group * WARP_ROWS, split * SPAN, lane)
        if IN_SHARED:
            fill_weights(w, first, group * WARP_ROWS, split * SPAN, lane, warp * WARP_WEIGHTS)
        clear(H_AT, ROWS * WIDTH)
        load_lengths(lengths, T, base, rows)
        load_biases(b, b_hn, first)
        cuda.syncthreads()
        if LSTM:
            pass_state(c0, c_n, base, rows, first, CELLS)
        pass_state(h0, h_n, base, rows, first, -1)
        fetch_projection(0, xp, B, base, rows, first)
        if ALONE:
            fetch_h(0, h0, y, base, rows, y_step, y_row)

        for s in range(T):
            if not ALONE:
                fetch_h(s, h0, y, base, rows, y_step, y_row)
            await_fetches()
            cuda.syncthreads()
            warp, lane = split_index(afresh(tid), 32)
            split, group = split_index(warp, GROUPS)
            for turn in range(TURNS):
                operand = H_AT + turn * (TURN_ROWS * WIDTH) + split * SPAN_WORDS
                sums = SUMS + split * SPLIT_WORDS + group * (WARP_ROWS * PITCH) + turn * TURN_ROWS
                sweep(weights, warp * WARP_WEIGHTS, operand, sums, lane)
            cuda.syncthreads()
            for i in range(afresh(tid), rows * U, THREADS):
                row, unit = split_index(i, U)
                length = load_shared_int(LENGTHS + row)
                if s < length and first + unit < H:
                    at = time(s, length) * B + base + row
                    state_at = types.uint64(ITEM * ((base + row) * H + first + unit))
                    last = s == length - 1
                    h = update(unit, row, at, first, gates, saved, last, c_n, state_at)
                    to = y + types.uint64(time(s, length) * y_step + (base + row) * y_row + ITEM * (first + unit))
                    store_element(to, h)
                    if last:
                        store_element(h_n + state_at, h)
                    if ALONE:
                        store_h(H_AT + row * WIDTH, first + unit, h)
                if LSTM and gates != 0 and s >= length and first + unit < H:
                    keep_cell(unit, row, s * B + base + row, first, saved, c0, base)
            if s + 1 < T:
                arrive(ticket)
                fetch_projection(s + 1, xp, B, base, rows, first)
                wait(ticket, (s + 1) * BLOCKS)

    return kernel
