# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""The parts of both forward kernels around their cells, as functions that Numba inlines."""

from typing import Any, NamedTuple

from ..compiler import cuda, inlined, types
from ..intrinsics.elements import elements_of, load_float
from ..intrinsics.memory import afresh, load_shared, load_shared_int, split_index, store_shared
from .geometry_forward import ForwardGeometry
from .pacing import Pacing


class Parts(NamedTuple):
    """Device functions; a: the kernel's record, base: the slice's first row, first: the block's first unit."""

    load_biases: Any  # a, first
    pass_state: Any  # initial, final, base, rows, first, word or -1: to shared memory; final state of empty rows
    fetch_projection: Any  # a, step, base, rows, first
    fetch_rows: Any  # word, step, address, rows: from (rows, H), those that are in time
    fetch_h: Any  # a, step, base, rows: h before the step
    pre_activation: Any  # gate, product, gate in it, local unit, local row: W_x x + W_h h + b
    recurrent: Any  # product, gate in it, bias, local unit, local row: W_h h + b


class Product(NamedTuple):
    load: Any  # W_h, first unit -> the weights in registers; the others go to shared memory
    sweep: Any  # weights, word of the operand: its rows times them, to the sums


def make_product(g: ForwardGeometry, which: int, gates: range) -> Product:
    """Makes the block's product number `which`, with the rows of those gates."""
    GROUPS, WIDTH, TURNS, TURN_ROWS = g.groups, g.width, g.turns, g.tiles * g.tile.batch
    WARP_ROWS, SPAN, SPAN_WORDS, PITCH = g.tile.warp_rows, g.tile.span, g.tile.span_words, g.tile.pitch
    WARP_WEIGHTS, SPLIT_WORDS, IN_SHARED = g.tile.shared_words, g.split_words, g.tile.shared_words > 0
    WEIGHTS = g.layout.weights + which * g.warps * g.tile.shared_words
    SUMS = g.layout.sums + which * g.splits * g.split_words
    load_weights, fill_weights, sweep_tiles = g.tile_ops(gates)

    @inlined
    def load(w, first):
        warp, lane = split_index(cuda.threadIdx.x, 32)
        split, group = split_index(warp, GROUPS)
        if IN_SHARED:
            fill_weights(w, first, group * WARP_ROWS, split * SPAN, lane, WEIGHTS + warp * WARP_WEIGHTS)
        return load_weights(w, first, group * WARP_ROWS, split * SPAN, lane)

    @inlined
    def sweep(weights, operand):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        split, group = split_index(warp, GROUPS)
        sums = SUMS + split * SPLIT_WORDS + group * (WARP_ROWS * PITCH)
        for turn in range(TURNS):
            here = operand + turn * (TURN_ROWS * WIDTH) + split * SPAN_WORDS
            sweep_tiles(weights, WEIGHTS + warp * WARP_WEIGHTS, here, sums + turn * TURN_ROWS, lane)

    return Product(load, sweep)


def make_parts(g: ForwardGeometry, pacing: Pacing) -> Parts:
    H, U, G, S = g.hidden, g.units, g.num_gates, g.splits
    THREADS, WARPS, WIDTH, PITCH, SPLIT_WORDS = g.threads, g.warps, g.width, g.tile.pitch, g.split_words
    ALIGNED, ITEM, ROW_WORDS, HAS_B_HN = g.aligned, g.operand.item, H // g.operand.per_word, len(g.shape.biases) > 0
    H_AT, PROJECTED, BIASES, LENGTHS = g.layout.h, g.layout.projected, g.layout.biases, g.layout.lengths
    SUMS, PRODUCT_SUMS = g.layout.sums, g.splits * g.split_words
    time, fetch_word, fetch_quad = pacing.time, pacing.fetch_word, pacing.fetch_quad
    elements = elements_of(ITEM)
    load_element, store_element, copy_element = elements.load, elements.store, elements.copy

    @inlined
    def load_biases(a, first):
        for i in range(afresh(cuda.threadIdx.x), (G + 1) * U, THREADS):
            gate, local = split_index(i, U)
            unit = first + local
            value = types.float32(0)
            if unit < H:
                if gate < G:
                    value = load_float(a.b + types.uint64(4 * (gate * H + unit)))
                elif HAS_B_HN:
                    value = load_float(a.b_hn + types.uint64(4 * unit))
            store_shared(BIASES + i, value)

    @inlined
    def pass_state(initial, final, base, rows, first, word):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, local = split_index(i, U)
            unit = first + local
            if unit < H:
                at = types.uint64(ITEM * ((base + row) * H + unit))
                value = load_element(initial + at)
                if word >= 0:
                    store_shared(word + i, value)
                if load_shared_int(LENGTHS + row) == 0:
                    store_element(final + at, value)

    @inlined
    def fetch_projection(a, step, base, rows, first):
        for i in range(afresh(cuda.threadIdx.x), rows * (G * U), THREADS):
            pair, local = split_index(i, U)
            row, gate = split_index(pair, G)
            unit = first + local
            length = load_shared_int(LENGTHS + row)
            if step < length and unit < H:
                t = time(step, length)
                source = a.xp + types.uint64(4 * (((t * a.B + base + row) * G + gate) * H + unit))
                fetch_word(PROJECTED + i, source)

    @inlined
    def fetch_row(word, source, lane):
        if ALIGNED:
            for k in range(4 * lane, ROW_WORDS, 128):
                fetch_quad(word + k, source + types.uint64(4 * k))
        else:
            for k in range(lane, H, 32):
                copy_element(word, k, source + types.uint64(ITEM * k))

    @inlined
    def fetch_h(a, step, base, rows):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        for row in range(warp, rows, WARPS):
            length = load_shared_int(LENGTHS + row)
            if step < length:
                source = a.h0 + types.uint64(ITEM * H * (base + row))
                if step > 0:
                    source = a.y + types.uint64(time(step - 1, length) * a.y_step + (base + row) * a.y_row)
                fetch_row(H_AT + row * WIDTH, source, lane)

    @inlined
    def fetch_rows(word, step, source, rows):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        for row in range(warp, rows, WARPS):
            if step < load_shared_int(LENGTHS + row):
                fetch_row(word + row * WIDTH, source + types.uint64(ITEM * H * row), lane)

    @inlined
    def recurrent(product, gate, bias, unit, row):
        total = load_shared(BIASES + bias * U + unit)
        for split in range(S):
            total += load_shared(SUMS + product * PRODUCT_SUMS + split * SPLIT_WORDS + (gate * U + unit) * PITCH + row)
        return total

    @inlined
    def pre_activation(gate, product, own, unit, row):
        return load_shared(PROJECTED + (row * G + gate) * U + unit) + recurrent(product, own, gate, unit, row)

    return Parts(load_biases, pass_state, fetch_projection, fetch_rows, fetch_h, pre_activation, recurrent)
