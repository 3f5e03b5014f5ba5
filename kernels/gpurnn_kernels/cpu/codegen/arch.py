"""The spin-wait hint and the state of the arithmetic differ between processor families. Nothing else in kernels does."""

from llvmlite import ir
from numba.core import cgutils

INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
VOID = ir.VoidType()
# Rounding to nearest, no exception that traps, denormal results and operands zero
_MXCSR = 0x1F80 | 0x8040
_FPCR = 1 << 24


def _is_x86(builder: ir.IRBuilder) -> bool:
    return str(builder.module.triple).startswith(("x86_64", "i686", "i386"))


def _is_arm(builder: ir.IRBuilder) -> bool:
    return str(builder.module.triple).startswith(("aarch64", "arm64"))


def _call(builder: ir.IRBuilder, name: str, args: list[ir.Value], result: ir.Type = VOID) -> ir.Value:
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def emit_pause(builder: ir.IRBuilder) -> None:
    """Tells the core that this is a spin loop. (LLVM intrinsics do it: inline assembly would need llvmlite's asm parser.)"""
    if _is_x86(builder):
        _call(builder, "llvm.x86.sse2.pause", [])
    elif _is_arm(builder):
        _call(builder, "llvm.aarch64.hint", [INT32(1)])


def emit_flush_denormals(builder: ir.IRBuilder) -> ir.Value:
    """Has this thread's arithmetic round to nearest and flush denormals, whatever its caller has set. Gives the state from
    before, which `emit_restore` takes."""
    if _is_arm(builder):
        before = _call(builder, "llvm.aarch64.get.fpcr", [], INT64)
        _call(builder, "llvm.aarch64.set.fpcr", [INT64(_FPCR)])
        return before
    if not _is_x86(builder):
        return INT64(0)
    slot = cgutils.alloca_once(builder, INT32)
    pointer = builder.bitcast(slot, ir.IntType(8).as_pointer())
    _call(builder, "llvm.x86.sse.stmxcsr", [pointer])
    before = builder.load(slot)
    builder.store(INT32(_MXCSR), slot)
    _call(builder, "llvm.x86.sse.ldmxcsr", [pointer])
    return builder.zext(before, INT64)


def emit_restore(builder: ir.IRBuilder, before: ir.Value) -> None:
    if _is_arm(builder):
        _call(builder, "llvm.aarch64.set.fpcr", [before])
    elif _is_x86(builder):
        slot = cgutils.alloca_once(builder, INT32)
        builder.store(builder.trunc(before, INT32), slot)
        _call(builder, "llvm.x86.sse.ldmxcsr", [builder.bitcast(slot, ir.IntType(8).as_pointer())])
