"""Pointers to arrays in global memory, and the units of a thread, loaded and stored at once.

A *vector* is what a thread holds of an array: a number, or a tuple of numbers, one a lane. Arrays are typed pointers; an index
counts elements, a stride bytes. float16 is widened to float32 where it is loaded and rounded where it is stored.
"""

from functools import cache
from typing import Any, NamedTuple

from ..compiler import inlined, intrinsic, types
from ..records import float_type
from .llvm import GLOBAL, HALF, INT16, INT32, INT64, ir

int64, uint32 = types.int64, types.uint32


@intrinsic
def along(typingctx: Any, pointer: Any, index: Any, stride: Any) -> Any:
    """Returns the pointer `index` strides further; both are below 2**32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        index, stride = (builder.zext(context.cast(builder, args[n], sig.args[n], uint32), INT64) for n in (1, 2))
        # as integers: LLVM would add the offsets of pointers to each other first, which takes an instruction more
        moved = builder.add(builder.ptrtoint(args[0], INT64), builder.mul(index, stride))
        return builder.inttoptr(moved, args[0].type)

    return pointer(pointer, index, stride), codegen


@inlined
def at_row(pointer, t, t_stride, row, row_stride):  # type: ignore[no-untyped-def]
    """Returns where a row of a step begins."""
    return along(along(pointer, t, t_stride), row, row_stride)


class Lanes(NamedTuple):
    load: Any  # pointer, index -> vector, in one load
    store: Any  # pointer, index, vector: in one store
    zeros: Any  # () -> vector


@cache
def lanes_of(lanes: int, bits: int) -> Lanes:
    """Makes them for vectors of `lanes` numbers; bits: of what is computed in, 32 or 64."""
    vector = vector_type(lanes, bits)

    def whole(builder: Any, pointer: Any, index: Any) -> Any:
        """Returns a pointer to all lanes."""
        element = pointer.type.pointee
        kind = element if lanes == 1 else ir.VectorType(element, lanes)
        generic = builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())
        return builder.addrspacecast(generic, kind.as_pointer(GLOBAL))

    @intrinsic
    def load(typingctx: Any, pointer: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = builder.load(whole(builder, *args), align=lanes * pointer.dtype.bitwidth // 8)
            numbers = [value] if lanes == 1 else [builder.extract_element(value, INT32(i)) for i in range(lanes)]
            return as_vector(context, builder, vector, [widened(builder, pointer.dtype, number) for number in numbers])

        return vector(pointer, int64), codegen

    @intrinsic
    def store(typingctx: Any, pointer: Any, index: Any, values: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            target = whole(builder, *args[:2])
            numbers = numbers_of(builder, args[2], lanes)
            if pointer.dtype == types.float16:
                numbers = [builder.bitcast(builder.fptrunc(number, HALF), INT16) for number in numbers]
            value = numbers[0]
            if lanes > 1:
                value = ir.Constant(target.type.pointee, ir.Undefined)
                for i, number in enumerate(numbers):
                    value = builder.insert_element(value, number, INT32(i))
            builder.store(value, target, align=lanes * pointer.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(pointer, int64, vector), codegen

    @intrinsic
    def zeros(typingctx: Any) -> Any:
        return vector(), lambda context, builder, sig, args: context.get_constant_null(vector)

    return Lanes(load, store, zeros)


def vector_type(lanes: int, bits: int) -> Any:
    return float_type(bits) if lanes == 1 else types.UniTuple(float_type(bits), lanes)


def numbers_of(builder: Any, vector: Any, lanes: int) -> list[Any]:
    """Takes a vector apart."""
    return [vector] if lanes == 1 else [builder.extract_value(vector, i) for i in range(lanes)]


def as_vector(context: Any, builder: Any, vector: Any, numbers: list[Any]) -> Any:
    """Puts numbers together to a vector of that type."""
    return numbers[0] if len(numbers) == 1 else context.make_tuple(builder, vector, numbers)


def widened(builder: Any, element: Any, number: Any) -> Any:
    """Turns what lies in memory as a type of the compiler into a number to compute with."""
    return builder.fpext(builder.bitcast(number, HALF), ir.FloatType()) if element == types.float16 else number
