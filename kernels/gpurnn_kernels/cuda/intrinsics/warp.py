"""Products that a warp shares out: each lane sums part of k, for a few gates of one unit and a few rows of the batch."""

from functools import cache
from typing import Any, NamedTuple

from ..compiler import intrinsic, types
from ..records import float_type
from .lanes import as_vector, numbers_of, vector_type, widened
from .llvm import GLOBAL, INT32, INT64, ptx
from .number import Scalars, Value

WARP = 32


@cache
def load_apart(count: int, bits: int) -> Any:
    """Makes load(pointer, index, stride) -> vector of `count` elements that lie `stride` elements apart."""
    vector = vector_type(count, bits)

    @intrinsic
    def load(typingctx: Any, pointer: Any, index: Any, stride: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            numbers = []
            for i in range(count):
                place = builder.gep(args[0], [builder.add(args[1], builder.mul(args[2], INT64(i)))])
                place = builder.addrspacecast(place, place.type.pointee.as_pointer(GLOBAL))
                number = builder.load(place, align=pointer.dtype.bitwidth // 8)
                numbers.append(widened(builder, pointer.dtype, number))
            return as_vector(context, builder, vector, numbers)

        return vector(pointer, types.int64, types.int64), codegen

    return load


class WarpSums(NamedTuple):
    """Sums of `count` products for `batch` rows, a lane's part of each; sum s of row b is number s * batch + b."""

    zeros: Any  # () -> sums
    of_row: Any  # sums, lane -> the warp's sums (count,) of the row whose number is the lane's


@cache
def warp_sums(count: int, batch: int, bits: int) -> WarpSums:
    sums = types.UniTuple(float_type(bits), count * batch)

    @intrinsic
    def zeros(typingctx: Any) -> Any:
        return sums(), lambda context, builder, sig, args: context.get_constant_null(sums)

    @intrinsic
    def of_row(typingctx: Any, totals: Any, lane: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            scalars = Scalars(builder, bits)
            found = []
            for s in range(count):
                rows = [Value(scalars, builder.extract_value(args[0], s * batch + row)) for row in range(batch)]
                mine, *others = [over_the_warp(value).value for value in rows]
                for row, other in enumerate(others, 1):
                    mine = builder.select(builder.icmp_unsigned("==", args[1], INT32(row)), other, mine)
                found.append(mine)
            return context.make_tuple(builder, sig.return_type, found)

        return types.UniTuple(float_type(bits), count)(totals, types.int32), codegen

    return WarpSums(zeros, of_row)


@cache
def add_products(which: tuple[int, ...], batch: int, bits: int) -> Any:
    """Makes add(sums, gates, rows) -> sums with gates[i] * rows[b] added to sum which[i] of row b."""

    @intrinsic
    def add(typingctx: Any, sums: Any, gates: Any, rows: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            scalars = Scalars(builder, bits)
            made = [Value(scalars, builder.extract_value(args[0], i)) for i in range(sums.count)]
            given = [Value(scalars, value) for value in numbers_of(builder, args[2], batch)]
            for s, gate in zip(which, numbers_of(builder, args[1], len(which)), strict=True):
                for row in range(batch):
                    made[s * batch + row] = scalars.fma(Value(scalars, gate), given[row], made[s * batch + row])
            return context.make_tuple(builder, sums, [value.value for value in made])

        return sums(sums, gates, rows), codegen

    return add


def over_the_warp(value: Value) -> Value:
    """Sums over all lanes, in the same order in each."""
    distance = WARP // 2
    while distance:
        value = value + from_lane(value, distance)
        distance //= 2
    return value


def from_lane(value: Value, distance: int) -> Value:
    """Takes what the lane holds whose number differs in the bit `distance`."""
    scalars, b = value.of, value.of.builder

    def shuffled(word: Any) -> Any:
        return ptx(b, f"shfl.sync.bfly.b32 $0, $1, {distance}, 31, -1;", INT32, [word], "=r,r")

    word = b.bitcast(value.value, scalars.integer)
    if scalars.bits == 32:
        return Value(scalars, b.bitcast(shuffled(word), scalars.type))
    low, high = (b.zext(shuffled(b.trunc(part, INT32)), INT64) for part in (word, b.lshr(word, INT64(32))))
    return Value(scalars, b.bitcast(b.or_(low, b.shl(high, INT64(32))), scalars.type))
