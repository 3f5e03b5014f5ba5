"""What differs between processor families, and nothing else does: the spin-wait hint and flush-to-zero."""

from llvmlite import ir
from numba.core import cgutils

INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
_MXCSR_FLUSH = 0x8040  # flush-to-zero and denormals-are-zero


def _is_x86(builder: ir.IRBuilder) -> bool:
    return str(builder.module.triple).startswith(("x86_64", "i686", "i386"))


def _call(builder: ir.IRBuilder, name: str, args: list[ir.Value]) -> None:
    function_type = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def emit_pause(builder: ir.IRBuilder) -> None:
    """Tells the core that this is a spin loop. (LLVM intrinsics: inline assembly would need llvmlite's asm parser.)"""
    if _is_x86(builder):
        _call(builder, "llvm.x86.sse2.pause", [])
    elif str(builder.module.triple).startswith(("aarch64", "arm64")):
        _call(builder, "llvm.aarch64.hint", [INT32(1)])


def emit_flush_denormals(builder: ir.IRBuilder) -> ir.Value:
    """Makes denormal results and operands zero on this thread; gives what `emit_restore` takes. x86 only: elsewhere
    denormals cost nothing to speak of, and nothing is done."""
    if not _is_x86(builder):
        return INT64(0)
    slot = cgutils.alloca_once(builder, INT32)
    pointer = builder.bitcast(slot, ir.IntType(8).as_pointer())
    _call(builder, "llvm.x86.sse.stmxcsr", [pointer])
    before = builder.load(slot)
    builder.store(builder.or_(before, INT32(_MXCSR_FLUSH)), slot)
    _call(builder, "llvm.x86.sse.ldmxcsr", [pointer])
    return builder.zext(before, INT64)


def emit_restore(builder: ir.IRBuilder, before: ir.Value) -> None:
    if not _is_x86(builder):
        return
    slot = cgutils.alloca_once(builder, INT32)
    builder.store(builder.trunc(before, INT32), slot)
    _call(builder, "llvm.x86.sse.ldmxcsr", [builder.bitcast(slot, ir.IntType(8).as_pointer())])
