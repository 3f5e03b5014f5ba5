# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""What the forward kernels do around their products, as functions that Numba inlines."""

from typing import Any, NamedTuple

from ..compiler import cuda, inlined, types
from ..intrinsics.elements import elements_of, load_float
from ..intrinsics.memory import afresh, load_shared, load_shared_int, split_index, store_shared
from .geometry import Geometry
from .pacing import Pacing, make_pacing


class Parts(NamedTuple):
    load_biases: Any  # b, b_hn or 0, first unit
    pass_state: Any  # initial, final, first row, rows, first unit, word or -1: to shared memory; final state of empty rows
    fetch_projection: Any  # step, W_x x, B, first row, rows, first unit
    fetch_rows: Any  # word, step, address, rows: from (rows, H), those that are in time
    fetch_h: Any  # step, h0, y, first row, rows, strides of y: h before the step
    product: Any  # sums, gate in them, bias, local unit, local row: W_h h + b


def forward_pacing(g: Geometry) -> Pacing:
    alone = g.blocks == 1
    return make_pacing(g.threads, g.rows, g.layout.lengths, reverse=g.reverse, alone=alone, async_copies=g.async_copies)


def make_parts(g: Geometry, pacing: Pacing) -> Parts:
    H, U, G, S = g.hidden, g.units, g.gates, g.splits
    THREADS, WARPS, WIDTH, PITCH, SPLIT_WORDS = g.threads, g.warps, g.width, g.tile.pitch, g.split_words
    ALIGNED, ITEM, ROW_WORDS = g.aligned, g.operand.item, H // g.operand.per_word
    H_AT, PROJECTED, BIASES, LENGTHS = g.layout.h, g.layout.projected, g.layout.biases, g.layout.lengths
    time, fetch_word, fetch_quad = pacing.time, pacing.fetch_word, pacing.fetch_quad
    elements = elements_of(ITEM)
    load_element, store_element, copy_element = elements.load, elements.store, elements.copy

    @inlined
    def load_biases(b, b_hn, first):
        for i in range(afresh(cuda.threadIdx.x), (G + 1) * U, THREADS):
            gate, local = split_index(i, U)
            unit = first + local
            value = types.float32(0)
            if unit < H:
                if gate < G:
                    value = load_float(b + types.uint64(4 * (gate * H + unit)))
                elif b_hn != 0:
                    value = load_float(b_hn + types.uint64(4 * unit))
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
    def fetch_projection(step, xp, B, base, rows, first):
        for i in range(afresh(cuda.threadIdx.x), rows * (G * U), THREADS):
            pair, local = split_index(i, U)
            row, gate = split_index(pair, G)
            unit = first + local
            length = load_shared_int(LENGTHS + row)
            if step < length and unit < H:
                t = time(step, length)
                source = xp + types.uint64(4 * (((t * B + base + row) * G + gate) * H + unit))
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
    def fetch_h(step, h0, y, base, rows, y_step, y_row):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        for row in range(warp, rows, WARPS):
            length = load_shared_int(LENGTHS + row)
            if step < length:
                if step > 0:
                    fetch_row(
                        H_AT + row * WIDTH, y + types.uint64(time(step - 1, length) * y_step + (base + row) * y_row), lane
                    )
                else:
                    fetch_row(H_AT + row * WIDTH, h0 + types.uint64(ITEM * H * (base + row)), lane)

    @inlined
    def fetch_rows(word, step, source, rows):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        for row in range(warp, rows, WARPS):
            if step < load_shared_int(LENGTHS + row):
                fetch_row(word + row * WIDTH, source + types.uint64(ITEM * H * row), lane)

    @inlined
    def product(sums, gate, bias, unit, row):
        total = load_shared(BIASES + bias * U + unit)
        for split in range(S):
            total += load_shared(sums + split * SPLIT_WORDS + (gate * U + unit) * PITCH + row)
        return total

    return Parts(load_biases, pass_state, fetch_projection, fetch_rows, fetch_h, product)
