# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""Everything that all persistent kernels share: which time a step stands at, who has finished, and waiting for each other.

Step s of row b stands at time t = s, or at t = length - 1 - s in reverse; a row does nothing past its length. Local rows and
units count from the first of the block's; a row that the slice does not have has length 0.
"""

from typing import Any, NamedTuple

from ..compiler import cuda, inlined, types
from ..intrinsics.memory import (
    afresh,
    arrive_release,
    await_copies,
    copy_quad,
    copy_quad_async,
    copy_word,
    copy_word_async,
    load_acquire,
    load_int64,
    split_index,
    store_shared,
    store_shared_int,
)
from .geometry import Geometry

TICKET_BYTES = 128  # a cache line each


class Pacing(NamedTuple):
    """Device functions; a: the kernel's record, s: a step, base: the slice's first row, first: the block's first unit."""

    standing: Any  # a -> first, base, rows of the slice, ticket
    time: Any  # step, length -> t
    load_lengths: Any  # a, base, rows: to shared memory, clamped
    clear: Any  # word, words
    fetch_word: Any  # word, address: 4 bytes that no block writes during the launch
    fetch_quad: Any  # word, address: 16 bytes, aligned
    await_fetches: Any  # what this thread has fetched
    arrive: Any  # ticket: what the block has written is there to read
    wait: Any  # ticket, goal: until that many blocks have arrived


def make_pacing(g: Geometry) -> Pacing:
    U, THREADS, ROWS, LENGTHS = g.units, g.threads, g.rows, g.layout.lengths
    REVERSE, ALONE, ASYNC = g.reverse, g.alone, g.async_copies

    @inlined
    def standing(a):
        first = cuda.blockIdx.y * U
        base = cuda.blockIdx.x * a.slice_rows
        rows = max(min(a.slice_rows, a.B - base), 0)
        return first, base, rows, a.tickets + types.uint64(cuda.blockIdx.x * TICKET_BYTES)

    @inlined
    def time(step, length):
        if REVERSE:
            return length - 1 - step
        return step

    @inlined
    def load_lengths(a, base, rows):
        for row in range(afresh(cuda.threadIdx.x), ROWS, THREADS):
            length = a.T if row < rows else 0
            if a.lengths != 0 and row < rows:
                length = max(min(load_int64(a.lengths + types.uint64(8 * (base + row))), a.T), 0)
            store_shared_int(LENGTHS + row, length)

    @inlined
    def clear(word, words):
        for i in range(cuda.threadIdx.x, words, THREADS):
            store_shared(word + i, types.float32(0))

    @inlined
    def fetch_word(word, source):
        if ASYNC:
            copy_word_async(word, source)
        else:
            copy_word(word, source)

    @inlined
    def fetch_quad(word, source):
        if ASYNC:
            copy_quad_async(word, source)
        else:
            copy_quad(word, source)

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

    return Pacing(standing, time, load_lengths, clear, fetch_word, fetch_quad, await_fetches, arrive, wait)


def over_cells(g: Geometry, body: Any) -> Any:
    """Makes run(a, s, base, rows, first): body(a, s, row, unit, base, first) for each row and unit of the block.

    Rows and units count from the block's first; units past the layer's last are left out.
    """
    H, U, THREADS = g.hidden, g.units, g.threads

    @inlined
    def run(a, s, base, rows, first):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            if first + unit < H:
                body(a, s, row, unit, base, first)

    return run
