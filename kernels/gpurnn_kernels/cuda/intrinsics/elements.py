# mypy: disable-error-code="no-untyped-def"
"""Numbers of a layer's dtype where a persistent kernel keeps or finds them, as float32.

In global memory: states, y, r * h. In shared memory: rows of h and r * h, elements side by side from a word on.
"""

from functools import cache
from typing import Any, NamedTuple

from ..compiler import intrinsic, types
from . import llvm
from .llvm import FLOAT, HALF, INT16, ir


class Elements(NamedTuple):
    load: Any  # address -> number
    store: Any  # address, number
    load_shared: Any  # word, index -> number
    store_shared: Any  # word, index, number
    copy: Any  # word, index, address: one that another block may have written during this launch


def _widened(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return value if value.type == FLOAT else builder.fpext(builder.bitcast(value, HALF), FLOAT)


def _narrowed(builder: ir.IRBuilder, value: ir.Value, stored: ir.Type) -> ir.Value:
    """Rounds to the nearest."""
    return value if stored == FLOAT else builder.bitcast(builder.fptrunc(value, HALF), stored)


@cache
def elements_of(item: int) -> Elements:
    """item: bytes of a number, 4 or 2."""
    stored, coherent, register = (FLOAT, "f32", "f") if item == 4 else (INT16, "u16", "h")

    def in_shared(context, builder, sig, args):
        """Returns a pointer to the element that the arguments (word, index, ..) name."""
        word, index = llvm.integers(context, builder, sig, args, 0, 1)
        first = builder.bitcast(llvm.shared_word(builder, word), ir.PointerType(stored, llvm.SHARED))
        return builder.gep(first, [index])

    @intrinsic
    def load(typingctx, address):
        def codegen(context, builder, sig, args):
            return _widened(builder, builder.load(llvm.global_pointer(builder, args[0], stored), align=item))

        return types.float32(address), codegen

    @intrinsic
    def store(typingctx, address, value):
        def codegen(context, builder, sig, args):
            value = _narrowed(builder, context.cast(builder, args[1], sig.args[1], types.float32), stored)
            builder.store(value, llvm.global_pointer(builder, args[0], stored), align=item)
            return context.get_dummy_value()

        return types.void(address, value), codegen

    @intrinsic
    def load_shared(typingctx, word, index):
        def codegen(context, builder, sig, args):
            return _widened(builder, builder.load(in_shared(context, builder, sig, args), align=item))

        return types.float32(word, index), codegen

    @intrinsic
    def store_shared(typingctx, word, index, value):
        def codegen(context, builder, sig, args):
            value = _narrowed(builder, context.cast(builder, args[2], sig.args[2], types.float32), stored)
            builder.store(value, in_shared(context, builder, sig, args), align=item)
            return context.get_dummy_value()

        return types.void(word, index, value), codegen

    @intrinsic
    def copy(typingctx, word, index, address):
        def codegen(context, builder, sig, args):
            text = f"ld.global.cg.{coherent} $0, [$1];"
            value = llvm.ptx(builder, text, stored, [args[2]], f"={register},l", memory=True)
            builder.store(value, in_shared(context, builder, sig, args), align=item)
            return context.get_dummy_value()

        return types.void(word, index, address), codegen

    return Elements(load, store, load_shared, store_shared, copy)


FLOATS = elements_of(4)
load_float, store_float = FLOATS.load, FLOATS.store
