"""Raw memory for kernels: int64 words, atomics and calls at byte addresses, as Numba intrinsics.

Addresses are plain int64 bytes, and words are aligned to 8 of them. There are no array structs and no index checks: Numba's
handling of negative indices halves a tile's speed. `emitter` makes the intrinsics.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from . import arch
from .inline import intrinsic

INT64 = ir.IntType(64)
Emit = Callable[..., ir.Value | None]


def emitter(result: types.Type, arguments: int) -> Callable[[Emit], Any]:
    """Turns `emit(builder, *values)` into an intrinsic of `arguments` int64 arguments."""

    def decorate(emit: Emit) -> Any:
        signature = result(*[types.int64] * arguments)

        def code(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> ir.Value:
            value = emit(builder, *values)
            return context.get_dummy_value() if value is None else value

        return intrinsic(_with_arity(emit.__name__, arguments, lambda *_: (signature, code)))

    return decorate


def _with_arity(name: str, arguments: int, typing: Callable[..., Any]) -> Callable[..., Any]:
    """Gives `typing` with `arguments` named parameters after the context: Numba binds an intrinsic's arguments by its
    signature."""
    by_count: dict[int, Callable[..., Any]] = {
        0: lambda context: typing(),
        1: lambda context, a: typing(a),
        2: lambda context, a, b: typing(a, b),
        3: lambda context, a, b, c: typing(a, b, c),
    }
    function = by_count[arguments]
    function.__name__ = function.__qualname__ = name
    return function


def _word(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, INT64.as_pointer())


@emitter(types.int64, 1)
def load_word(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.load(_word(builder, address), align=8)


@emitter(types.void, 2)
def store_word(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
    builder.store(value, _word(builder, address), align=8)


@emitter(types.int64, 1)
def load_acquire(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.load_atomic(_word(builder, address), "acquire", 8)


@emitter(types.void, 2)
def store_release(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
    builder.store_atomic(value, _word(builder, address), "release", 8)


@emitter(types.int64, 1)
def load_ordered(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.load_atomic(_word(builder, address), "seq_cst", 8)


@emitter(types.void, 2)
def store_ordered(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
    builder.store_atomic(value, _word(builder, address), "seq_cst", 8)


@emitter(types.void, 0)
def store_fence(builder: ir.IRBuilder) -> None:
    """Makes all earlier stores, streaming stores too, visible to other threads before later ones."""
    builder.fence("seq_cst")


@emitter(types.int64, 3)
def exchange(builder: ir.IRBuilder, address: ir.Value, expected: ir.Value, new: ir.Value) -> ir.Value:
    """Puts a new value where the expected one stands, atomically. Gives 1 if it stood there, else 0."""
    found = builder.cmpxchg(_word(builder, address), expected, new, "acq_rel", "acquire")
    return builder.zext(builder.extract_value(found, 1), INT64)


@emitter(types.void, 0)
def pause(builder: ir.IRBuilder) -> None:
    arch.emit_pause(builder)


@emitter(types.int64, 0)
def flush_denormals(builder: ir.IRBuilder) -> ir.Value:
    return arch.emit_flush_denormals(builder)


@emitter(types.void, 1)
def restore_denormals(builder: ir.IRBuilder, before: ir.Value) -> None:
    arch.emit_restore(builder, before)


@emitter(types.void, 3)
def copy_memory(builder: ir.IRBuilder, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Copies `count` bytes between addresses that must not overlap, like the C library's memcpy."""
    kind = ir.IntType(8).as_pointer()
    copy = builder.module.declare_intrinsic("llvm.memcpy", [kind, kind, INT64])
    builder.call(copy, [builder.inttoptr(to, kind), builder.inttoptr(source, kind), count, ir.IntType(1)(0)])


@emitter(types.int64, 1)
def call0(builder: ir.IRBuilder, function: ir.Value) -> ir.Value:
    """Calls the C function `int f(void)` at an address."""
    kind = ir.FunctionType(ir.IntType(32), [])
    return builder.sext(builder.call(builder.inttoptr(function, kind.as_pointer()), []), INT64)


@emitter(types.int64, 3)
def call2(builder: ir.IRBuilder, function: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """Calls the C function `int64 f(int64, int64)` at an address."""
    kind = ir.FunctionType(INT64, [INT64, INT64])
    return builder.call(builder.inttoptr(function, kind.as_pointer()), [a, b])


@intrinsic
def call_words(context: Any, function: Any, words: Any) -> Any:
    """call_words(function, words) calls the C function `void f(int64, ...)` at an address."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        _call(builder, values[0], cgutils.unpack_tuple(builder, values[1]))
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(words))), code


@intrinsic
def call_with(context: Any, function: Any, zero: Any, words: Any) -> Any:
    """call_with(function, zero, words) calls the C function `void f(element, int64)` at an address. The int64 is the
    address of the words, on the stack: as arguments, many words would be copied there and once more, by Numba's wrapper."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        given = cgutils.unpack_tuple(builder, values[2])
        room = cgutils.alloca_once(builder, ir.ArrayType(INT64, len(given)))
        for index, word in enumerate(given):
            builder.store(word, cgutils.gep_inbounds(builder, room, 0, index))
        _call(builder, values[0], [values[1], builder.ptrtoint(room, INT64)])
        return context.get_dummy_value()

    return types.void(types.int64, zero, types.UniTuple(types.int64, len(words))), code


def _call(builder: ir.IRBuilder, function: ir.Value, arguments: list[ir.Value]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(builder.inttoptr(function, kind.as_pointer()), arguments)


@intrinsic
def address_of(context: Any, record: Any) -> Any:
    """Gives the address that a pointer to a record holds."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.ptrtoint(values[0], INT64)

    return types.int64(record), code


@intrinsic
def record(context: Any, pointer: Any) -> Any:
    """Gives the record that a kernel's argument points to."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.bitcast(values[0], context.get_value_type(signature.return_type))

    return pointer.dtype(pointer), code
