"""Matrices of float32 as strips of bfloat16, and their products on AMX tiles, as accurate as float32's.

A float32's 24 bits are the sum of three bfloat16 of 8: high, middle, low. Of their nine products six count: high high, high
middle and middle high, middle middle, high low and low high; the others are below the rounding of a float32.

A *strip* is 16 rows of A or 16 columns of B, in blocks of 32 k: [block][part][row][pair] for A, [block][part][pair][column]
for B, where a pair is k and k + 16 of the block. Products of strips start at zero and are added to their result at the end.
Addresses and strides are in bytes.
"""

from llvmlite import ir

from ...codegen.bundle import pointwise
from ...codegen.descriptors import V1
from ...codegen.elementwise import store_units
from ...codegen.inline import called, inlined
from ...codegen.vector import INT64, Vector, Vectors
from .instructions import BLOCK, PART, ROW, product_1_1, product_1_2, product_2_1, product_2_2

LANES = 16  # rows or columns of a strip, a vector of float32
PAIRS = 16  # of a block
DEPTH = 2 * PAIRS  # k of a block
SUMS_BYTES = 4 * LANES * ROW  # two strips times two
_HIGH, _HALF = -1 << 16, 1 << 15  # the bits of a float32 that a bfloat16 has; what rounds to them
ROWS = 128  # of A that are split at once, and K_BLOCKS: they stay in L2 beside two strips of B
K_BLOCKS = 32


def _parts(v: Vectors, x: Vector) -> list[ir.Value]:
    """Gives the high, middle and low part of x, each as a float32's bits."""
    b = v.builder
    high_bits, half = (ir.Constant(v.integer, [bits] * v.lanes) for bits in (_HIGH, _HALF))
    found = []
    for _ in range(2):
        part = b.and_(b.add(b.bitcast(x.value, v.integer), half), high_bits)
        found.append(part)
        x = x - Vector(v, b.bitcast(part, v.type))
    return [*found, b.bitcast(x.value, v.integer)]


def _store_pairs(v: Vectors, to: ir.Value, first: Vector, second: Vector) -> None:
    """Stores a row of each part: the parts of `first` and `second` lie in pairs, lane by lane."""
    b = v.builder
    high_bits, half = (ir.Constant(v.integer, [bits] * v.lanes) for bits in (_HIGH, 16))
    for part, (low, high) in enumerate(zip(_parts(v, first), _parts(v, second), strict=True)):
        both = b.or_(b.lshr(low, half), b.and_(high, high_bits))
        v.store(b.add(to, INT64(part * PART)), Vector(v, b.bitcast(both, v.type)))


@pointwise
def split_pair(
    v: Vectors, to: ir.Value, first: ir.Value, first_count: ir.Value, second: ir.Value, second_count: ir.Value
) -> None:
    """Writes the row at `to` of a block of three parts: k from the vector at `first`, k + 16 from the one at `second`.
    first_count and second_count are the elements of each that count; the others are zeros and are not read."""
    b = v.builder
    least = b.select(b.icmp_signed("<", first_count, second_count), first_count, second_count)
    with b.if_else(b.icmp_signed(">=", least, INT64(v.lanes)), likely=True) as (then, otherwise):
        with then:
            _store_pairs(v, to, v.load(first), v.load(second))
        with otherwise:
            _store_pairs(v, to, v.load_first(first, first_count), v.load_first(second, second_count))


@pointwise
def split_columns(
    v: Vectors, to: ir.Value, source: ir.Value, stride: ir.Value, count: ir.Value, zeros: ir.Value, total: ir.Value
) -> None:
    """Writes the block at `to` from `count` rows of one vector each, `stride` bytes apart: the rows are its k, and the
    columns its rows. Rows past `count` are read from `zeros`, a vector of zeros. Adds the sum of the rows to the vector at
    `total`."""
    b = v.builder
    halves = []
    found = v.load(total)
    for start in (0, PAIRS):
        rows = []
        for k in range(start, start + PAIRS):
            row = b.add(source, b.mul(stride, INT64(k)))
            rows.append(v.load(b.select(b.icmp_signed(">", count, INT64(k)), row, zeros)))
        halves.append(v.transposed(rows))
        while len(rows) > 1:
            rows = [one + other for one, other in zip(rows[::2], rows[1::2], strict=True)]
        found = found + rows[0]
    v.store(total, found)
    for row, (first, second) in enumerate(zip(*halves, strict=True)):
        _store_pairs(v, b.add(to, INT64(row * ROW)), first, second)


@pointwise
def add_stored(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Adds one vector to a user's array, of which `count` elements remain."""
    v.store_tail(to, v.load_tail(to, count) + v.load(source), count)


def blocks_in(vectors: int) -> int:
    """Gives the blocks of a depth of `vectors` vectors."""
    return -(-vectors // 2)


def strips_in(columns: int) -> int:
    return -(-columns // LANES)


blocks_of, strips_of = inlined(blocks_in), inlined(strips_in)


@called
def split_rows(zero, to, rows, a, a_row, vectors):
    """Splits `rows` rows of A into strips at `to`. The rows are `vectors` vectors each and lie a_row bytes apart. The last
    strip's rows past `rows` are left as they are: each row of a product depends on its own row of A alone."""
    blocks = blocks_of(vectors)
    for m in range(rows):
        strip, row = to + m // LANES * blocks * BLOCK + m % LANES * ROW, a + m * a_row
        for block in range(blocks):
            first = row + 2 * block * V1
            second = LANES if 2 * block + 1 < vectors else 0
            split_pair(zero, (strip + block * BLOCK, first, LANES, first + V1, second))


@inlined
def _take_sums(zero, c, rows, strips, columns, out, out_row, adds):
    for m in range(rows):
        for strip in range(strips):
            words = out + m * out_row + strip * V1, c + (m * strips + strip) * V1, columns - strip * LANES
            if adds:
                add_stored(zero, words)
            else:
                store_units(zero, words)


@called
def multiply_strips(zero, c, rows, a, a_strip, columns, b, b_strip, blocks, out, out_row, adds, descending):
    """Makes out (rows, columns) = A B, or += A B where `adds` is 1, of strips that lie a_strip and b_strip bytes apart.

    `out` is a user's or a padded array with rows out_row bytes apart and its columns side by side; nothing past `columns` is
    written. `c` is SUMS_BYTES of scratch memory. None of these overlap. descending: the last columns come first.
    """
    pairs = -(-columns // (2 * LANES))
    for index in range(pairs):
        n = 2 * LANES * (pairs - 1 - index if descending else index)
        b_n, wide = b + n // LANES * b_strip, columns - n > LANES
        for m in range(0, rows, 2 * LANES):
            high = rows - m > LANES
            words = a + m // LANES * a_strip, a_strip, b_n, b_strip, blocks, c
            if high and wide:
                product_2_2(words)
            elif high:
                product_2_1(words)
            elif wide:
                product_1_2(words)
            else:
                product_1_1(words)
            to = out + m * out_row + n // LANES * V1
            _take_sums(zero, c, min(rows - m, 2 * LANES), 2 if wide else 1, columns - n, to, out_row, adds)


@called
def multiply_rows(zero, room, rows, a, a_row, vectors, columns, w, out, out_row, adds, descending):
    """Does what `multiply_strips` does for rows of A that are not split yet: `vectors` vectors each, a_row bytes apart. `w`
    is the address of B's strips, which lie side by side. `room` is `rows_room` bytes of scratch memory."""
    w_strip = blocks_of(vectors) * BLOCK
    for first in range(0, rows, ROWS):
        count = min(ROWS, rows - first)
        for k in range(0, blocks_of(vectors), K_BLOCKS):
            depth = min(2 * K_BLOCKS, vectors - 2 * k)
            blocks = blocks_of(depth)
            strips = room + SUMS_BYTES
            split_rows(zero, strips, count, a + first * a_row + 2 * k * V1, a_row, depth)
            adds_now = 1 if k > 0 else adds
            to = out + first * out_row
            multiply_strips(
                zero,
                room,
                count,
                strips,
                blocks * BLOCK,
                columns,
                w + k * BLOCK,
                w_strip,
                blocks,
                to,
                out_row,
                adds_now,
                descending,
            )


def rows_room(rows: int, vectors: int) -> int:
    """Gives the bytes of scratch memory that `multiply_rows` needs."""
    strips = -(-min(rows, ROWS) // LANES)
    return SUMS_BYTES + strips * min(K_BLOCKS, blocks_in(vectors)) * BLOCK
