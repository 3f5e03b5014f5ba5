"""Shared memory by word, copies into it around L1, and the ticket that blocks meet at.

`word` counts the 32-bit words of the block's dynamic shared memory; `address` is a byte address in global memory.
What another block wrote during the launch is read with .cg: L1 may hold a stale line.
"""

from typing import Any

from ..compiler import intrinsic, types
from . import llvm
from .llvm import FLOAT, INT32, INT64, VOID, integers, ir


def _shared(context: Any, builder: Any, sig: Any, args: Any, n: int) -> ir.Value:
    return llvm.shared_word(builder, *integers(context, builder, sig, args, n))


@intrinsic
def split_index(typingctx, index, size):  # type: ignore[no-untyped-def]
    """index >= 0 -> index // size, index % size, without the care for negative numbers that Python's operators take."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        index, size = integers(context, builder, sig, args, 0, 1)
        return context.make_tuple(builder, sig.return_type, [builder.udiv(index, size), builder.urem(index, size)])

    return types.UniTuple(types.int32, 2)(index, size), codegen


@intrinsic
def afresh(typingctx, value):  # type: ignore[no-untyped-def]
    """The same int32, but what is computed from it is not kept in registers from step to step: those hold weights."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return llvm.ptx(builder, "mov.b32 $0, $1;", INT32, integers(context, builder, sig, args, 0), "=r,r")

    return types.int32(value), codegen


@intrinsic
def load_shared(typingctx, word):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load(_shared(context, builder, sig, args, 0), align=4)

    return types.float32(word), codegen


@intrinsic
def store_shared(typingctx, word, value):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        builder.store(
            context.cast(builder, args[1], sig.args[1], types.float32), _shared(context, builder, sig, args, 0), align=4
        )
        return context.get_dummy_value()

    return types.void(word, value), codegen


@intrinsic
def load_shared_int(typingctx, word):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        pointer = builder.bitcast(_shared(context, builder, sig, args, 0), ir.PointerType(INT32, llvm.SHARED))
        return builder.load(pointer, align=4)

    return types.int32(word), codegen


@intrinsic
def store_shared_int(typingctx, word, value):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        pointer = builder.bitcast(_shared(context, builder, sig, args, 0), ir.PointerType(INT32, llvm.SHARED))
        builder.store(*integers(context, builder, sig, args, 1), pointer, align=4)
        return context.get_dummy_value()

    return types.void(word, value), codegen


@intrinsic
def copy_quad(typingctx, word, address):  # type: ignore[no-untyped-def]
    """16 bytes, aligned, global to shared, complete at once (compute capability 7.5 has no cp.async)."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        result = ir.LiteralStructType([FLOAT] * 4)
        text = "ld.global.cg.v4.f32 {$0, $1, $2, $3}, [$4];"
        loaded = llvm.ptx(builder, text, result, [args[1]], "=f,=f,=f,=f,l", memory=True)
        vector = ir.Constant(llvm.QUAD, ir.Undefined)
        for e in range(4):
            vector = builder.insert_element(vector, builder.extract_value(loaded, e), INT32(e))
        target = builder.bitcast(_shared(context, builder, sig, args, 0), ir.PointerType(llvm.QUAD, llvm.SHARED))
        builder.store(vector, target, align=16)
        return context.get_dummy_value()

    return types.void(word, address), codegen


@intrinsic
def copy_word(typingctx, word, address):  # type: ignore[no-untyped-def]
    """4 bytes that no block writes during the launch."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        value = builder.load(llvm.global_pointer(builder, args[1], FLOAT), align=4)
        builder.store(value, _shared(context, builder, sig, args, 0), align=4)
        return context.get_dummy_value()

    return types.void(word, address), codegen


def _copy_async(level, size):  # type: ignore[no-untyped-def]
    @intrinsic
    def copy(typingctx, word, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            to = builder.ptrtoint(_shared(context, builder, sig, args, 0), INT32)
            text = f"cp.async.{level}.shared.global [$0], [$1], {size};"
            llvm.ptx(builder, text, VOID, [to, args[1]], "r,l", memory=True)
            return context.get_dummy_value()

        return types.void(word, address), codegen

    return copy


copy_quad_async = _copy_async("cg", 16)
copy_word_async = _copy_async("ca", 4)  # through L1: for what no block writes during the launch


@intrinsic
def await_copies(typingctx):  # type: ignore[no-untyped-def]
    """Until every asynchronous copy of this thread has landed."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        llvm.ptx(builder, "cp.async.wait_all;", VOID, [], "", memory=True)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def arrive_release(typingctx, address):  # type: ignore[no-untyped-def]
    """Add 1 to the uint32 there; who sees it, sees what the block wrote before its last bar.sync."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        context.active_code_library.use_cooperative = True  # the launch must ask for co-residency
        llvm.ptx(builder, "red.release.gpu.global.add.u32 [$0], $1;", VOID, [args[0], INT32(1)], "l,r", memory=True)
        return context.get_dummy_value()

    return types.void(address), codegen


@intrinsic
def load_acquire(typingctx, address):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return llvm.ptx(builder, "ld.acquire.gpu.global.u32 $0, [$1];", INT32, [args[0]], "=r,l", memory=True)

    return types.uint32(address), codegen


@intrinsic
def load_int64(typingctx, address):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load(llvm.global_pointer(builder, args[0], INT64), align=8)

    return types.int64(address), codegen
