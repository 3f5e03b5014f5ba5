"""Emitting LLVM inside an intrinsic: constants, typed pointers from addresses, inline PTX."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir as ir

from ..compiler import types

FLOAT = ir.FloatType()
HALF = ir.HalfType()
INT16 = ir.IntType(16)
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
VOID = ir.VoidType()
QUAD = ir.VectorType(FLOAT, 4)
GLOBAL = 1  # address spaces
SHARED = 3

ZERO = ir.Constant(FLOAT, 0.0)
SHARED_NAME = "persistent_shared"


def integers(context: Any, builder: Any, sig: Any, args: Any, *which: int) -> list[ir.Value]:
    """Arguments of an intrinsic as 32-bit integers."""
    return [context.cast(builder, args[n], sig.args[n], types.int32) for n in which]


def shared_word(builder: ir.IRBuilder, index: ir.Value) -> ir.Value:
    """Pointer to the `index`-th 32-bit word of the block's dynamic shared memory."""
    module = builder.module
    if SHARED_NAME in module.globals:
        memory = module.globals[SHARED_NAME]
    else:
        memory = ir.GlobalVariable(module, ir.ArrayType(FLOAT, 0), SHARED_NAME, addrspace=SHARED)
        memory.align = 16
    return builder.gep(memory, [INT32(0), index])


def global_pointer(builder: ir.IRBuilder, address: ir.Value, element: ir.Type) -> ir.Value:
    return builder.inttoptr(address, ir.PointerType(element, GLOBAL))


def load_quad(builder: ir.IRBuilder, pointer: ir.Value) -> list[ir.Value]:
    """Four floats as one 128-bit load; the caller answers for the alignment."""
    loaded = builder.load(builder.bitcast(pointer, ir.PointerType(QUAD, pointer.type.addrspace)), align=16)
    return [builder.extract_element(loaded, INT32(e)) for e in range(4)]


def declared(module: ir.Module, kind: ir.FunctionType, name: str) -> ir.Function:
    """Declares one of LLVM's intrinsics, once a module."""
    return module.globals.get(name) or ir.Function(module, kind, name)


def fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    function = builder.module.declare_intrinsic("llvm.fma", [FLOAT], ir.FunctionType(FLOAT, [FLOAT] * 3))
    return builder.call(function, [a, b, c])


def ptx(
    builder: ir.IRBuilder, text: str, result: ir.Type, args: Sequence[ir.Value], constraints: str, *, memory: bool = False
) -> ir.Value:
    """Inline PTX. memory: it reads or writes memory, so that nothing moves across it."""
    if memory:
        constraints = f"{constraints},~{{memory}}" if constraints else "~{memory}"
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), list(args))
