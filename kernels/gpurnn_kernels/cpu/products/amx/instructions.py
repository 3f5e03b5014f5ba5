"""The instructions of AMX, as intrinsics of kernels.

Eight tile registers hold 16 rows of 64 bytes. One instruction adds the product of a tile of A (16 rows of 32 bfloat16) and a
tile of B (16 rows, each 16 pairs of bfloat16: two k of 16 columns) to a tile of 16 x 16 float32. Products of bfloat16 are
exact in float32; sums are rounded to nearest, denormals are zeros (Intel 64 and IA-32 Architectures Software Developer's
Manual, volume 2, TDPBF16PS).
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from ...codegen.inline import intrinsic
from ...codegen.intrinsics import emitter
from ...codegen.vector import INT64

ROW = 64  # bytes
PART = 16 * ROW  # a tile
BLOCK = 3 * PART  # the three parts of 16 rows x 32 k, or of 32 k x 16 columns
_BYTE = ir.IntType(8)
_POINTER = _BYTE.as_pointer()
# which part of A meets which part of B: the smallest products first, one operand changed at a time. Left out are those below
# 2**-24 of the largest.
_MEETINGS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))
_TILES = 8
_A, _B = 4, 6  # the first tile of A's rows and of B's columns; tiles 0 to 3 are sums


def _call(builder: ir.IRBuilder, name: str, *values: ir.Value | int) -> None:
    given = [_BYTE(value) if isinstance(value, int) else value for value in values]
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in given])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), given)


@emitter(types.void, 0)
def tiles_on(builder: ir.IRBuilder) -> None:
    """Sets all tiles of this thread to 16 rows of 64 bytes. Products run only between `tiles_on` and `tiles_off`."""
    palette, sizes = [1] + [0] * 15, [ROW, 0] * _TILES + [0] * 16 + [16] * _TILES + [0] * 8
    constant = cgutils.create_constant_array(_BYTE, palette + sizes)
    place = cgutils.alloca_once_value(builder, constant)
    _call(builder, "ldtilecfg", builder.bitcast(place, _POINTER))


@emitter(types.void, 0)
def tiles_off(builder: ir.IRBuilder) -> None:
    """Releases this thread's tiles: the system switches threads without tiles faster."""
    _call(builder, "tilerelease")


def _product(rows: int, columns: int) -> Any:
    """Makes the intrinsic product((a, a_strip, b, b_strip, blocks, c)): the sum over `blocks` blocks of `rows` strips of A
    times `columns` strips of B.

    `a`, `b` and `c` are byte addresses; a_strip and b_strip are the bytes from one strip to the next. The blocks of a strip
    lie side by side, BLOCK bytes each. c becomes rows * 16 rows of columns * 16 float32, without gaps; it need not be cleared,
    and must not overlap A or B. Addresses need not be aligned.
    """

    @intrinsic
    def product(context: Any, words: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            _emit_product(builder, rows, columns, *cgutils.unpack_tuple(builder, values[0]))
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, 6)), code

    return product


def _emit_product(
    builder: ir.IRBuilder,
    rows: int,
    columns: int,
    a: ir.Value,
    a_strip: ir.Value,
    b: ir.Value,
    b_strip: ir.Value,
    blocks: ir.Value,
    c: ir.Value,
) -> None:
    sums = {(m, n): m * columns + n for m in range(rows) for n in range(columns)}
    for tile in sums.values():
        _call(builder, "tilezero", tile)

    def load(first: int, count: int, address: ir.Value, strip: ir.Value, part: int) -> None:
        for index in range(count):
            at = builder.add(address, builder.mul(strip, INT64(index)))
            _call(builder, "tileloadd64", first + index, _pointer(builder, at, part * PART), INT64(ROW))

    with cgutils.for_range(builder, blocks) as loop:
        along = builder.mul(loop.index, INT64(BLOCK))
        a_at, b_at = builder.add(a, along), builder.add(b, along)
        before: tuple[int, int] | tuple[None, None] = None, None
        for a_part, b_part in _MEETINGS:
            if a_part != before[0]:
                load(_A, rows, a_at, a_strip, a_part)
            if b_part != before[1]:
                load(_B, columns, b_at, b_strip, b_part)
            for (m, n), tile in sums.items():
                _call(builder, "tdpbf16ps", tile, _A + m, _B + n)
            before = a_part, b_part
    for (m, n), tile in sums.items():
        at = _pointer(builder, c, m * columns * PART + n * ROW)
        _call(builder, "tilestored64", tile, at, INT64(columns * ROW))


def _pointer(builder: ir.IRBuilder, address: ir.Value, offset: int) -> ir.Value:
    return builder.inttoptr(builder.add(address, INT64(offset)), _POINTER)


product_1_1, product_1_2, product_2_1, product_2_2 = (_product(rows, columns) for rows in (1, 2) for columns in (1, 2))
