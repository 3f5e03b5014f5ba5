"""What every persistent kernel does around its products, as functions that Numba inlines.

Step s of row b stands at time t = s, or at t = length - 1 - s in reverse; a row does nothing past its length. Local rows and
units count from the first of the block's; a row that the slice does not have has length 0.
"""

from typing import Any, NamedTuple

from numba import cuda, types

from .geometry import Geometry
from .memory import (
    afresh,
    arrive_release,
    await_copies,
    copy_quad,
    copy_quad_async,
    copy_word,
    copy_word_async,
    load_acquire,
    load_coherent,
    load_float,
    load_int64,
    load_shared,
    load_shared_int,
    split_index,
    store_float,
    store_shared,
    store_shared_int,
)

inlined = cuda.jit(device=True, inline="always")

TICKET_BYTES = 128  # a cache line each


class Parts(NamedTuple):
    time: Any  # step, length -> t
    load_lengths: Any  # lengths or 0, T, first row, rows
    load_biases: Any  # b, b_hn or 0, first unit
    pass_state: Any  # initial, final, first row, rows, first unit, word or -1: to shared memory; final state of empty rows
    fetch_projection: Any  # step, W_x x, B, first row, rows, first unit
    fetch_rows: Any  # word, step, address, rows: from (rows, H), those that are in time
    fetch_h: Any  # step, h0, y, first row, rows, strides of y: h before the step
    await_fetches: Any  # what this thread has fetched
    arrive: Any  # ticket
    wait: Any  # ticket, goal
    product: Any  # sums, gate in them, bias, local unit, local row: W_h h + b
    clear: Any  # word, words


def make_parts(g: Geometry) -> Parts:
    H, U, G, S = g.hidden, g.units, g.gates, g.splits
    THREADS, WARPS, ROWS, WIDTH, PITCH, SPLIT_WORDS = g.threads, g.warps, g.rows, g.width, g.tile.pitch, g.split_words
    REVERSE, ALONE = g.reverse, g.blocks == 1
    ALIGNED, ASYNC = g.aligned, g.async_copies
    H_AT, PROJECTED, BIASES, LENGTHS = g.layout.h, g.layout.projected, g.layout.biases, g.layout.lengths

    @inlined
    def time(step, length):
        if REVERSE:
            return length - 1 - step
        return step

    @inlined
    def load_lengths(lengths, T, base, rows):
        for row in range(afresh(cuda.threadIdx.x), ROWS, THREADS):
            length = T if row < rows else 0
            if lengths != 0 and row < rows:
                length = max(min(load_int64(lengths + types.uint64(8 * (base + row))), T), 0)
            store_shared_int(LENGTHS + row, length)

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
                at = types.uint64(4 * ((base + row) * H + unit))
                value = load_float(initial + at)
                if word >= 0:
                    store_shared(word + i, value)
                if load_shared_int(LENGTHS + row) == 0:
                    store_float(final + at, value)

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
                if ASYNC:
                    copy_word_async(PROJECTED + i, source)
                else:
                    copy_word(PROJECTED + i, source)

    @inlined
    def fetch_row(word, source, lane):
        if ALIGNED:
            for k in range(4 * lane, H, 128):
                if ASYNC:
                    copy_quad_async(word + k, source + types.uint64(4 * k))
                else:
                    copy_quad(word + k, source + types.uint64(4 * k))
        else:
            for k in range(lane, H, 32):
                store_shared(word + k, load_coherent(source + types.uint64(4 * k)))

    @inlined
    def fetch_h(step, h0, y, base, rows, y_step, y_row):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        for row in range(warp, rows, WARPS):
            length = load_shared_int(LENGTHS + row)
            if step < length:
                if step > 0:
                    fetch_row(H_AT + row * WIDTH, y + types.uint64(time(step - 1, length) * y_step + (base + row) * y_row), lane)
                else:
                    fetch_row(H_AT + row * WIDTH, h0 + types.uint64(4 * H * (base + row)), lane)

    @inlined
    def fetch_rows(word, step, source, rows):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        for row in range(warp, rows, WARPS):
            if step < load_shared_int(LENGTHS + row):
                fetch_row(word + row * WIDTH, source + types.uint64(4 * H * row), lane)

    @inlined
    def product(sums, gate, bias, unit, row):
        total = load_shared(BIASES + bias * U + unit)
        for split in range(S):
            total += load_shared(sums + split * SPLIT_WORDS + (gate * U + unit) * PITCH + row)
        return total

    @inlined
    def clear(word, words):
        for i in range(cuda.threadIdx.x, words, THREADS):
            store_shared(word + i, types.float32(0))

    @inlined
    def await_fetches():
        if ASYNC:
            await_copies()

    @inlined
    def arrive(ticket):
        cuda.syncthreads()
        if not ALONE and cuda.threadIdx.x == 0:
            arrive_release(ticket)

    @inlined
    def wait(ticket, goal):
        if not ALONE and cuda.threadIdx.x == 0:
            while load_acquire(ticket) < types.uint32(goal):
                pass
        cuda.syncthreads()

    return Parts(
        time,
        load_lengths,
        load_biases,
        pass_state,
        fetch_projection,
        fetch_rows,
        fetch_h,
        await_fetches,
        arrive,
        wait,
        product,
        clear,
    )
