"""numba-cuda-mlir in the place of numba-cuda: the same kernels, compiled by the compiler that is to follow it.

`install` puts two modules into a process that has not imported the CUDA backend yet: one for `cuda/compiler.py`, and one for
llvmlite, whose builder emits MLIR's LLVM dialect. Of both there is as much as the kernels and their intrinsics use.
"""

import re
import sys
from collections.abc import Callable
from functools import cached_property, wraps
from types import ModuleType
from typing import Any

from numba_cuda_mlir import compiler as mlir_compiler
from numba_cuda_mlir import cuda, tools, types
from numba_cuda_mlir._mlir import ir as mlir
from numba_cuda_mlir._mlir.dialects import arith, llvm, vector
from numba_cuda_mlir._mlir.dialects import math as mlir_math
from numba_cuda_mlir._mlir.extras import types as T
from numba_cuda_mlir.extending import intrinsic as mlir_intrinsic
from numba_cuda_mlir.extending import refresh_registries
from numba_cuda_mlir.lowering_utilities import convert
from numba_cuda_mlir.numba_cuda.types.containers import NamedTuple, StarArgTuple, StarArgUniTuple

DYNAMIC = -2147483648  # an index of `getelementptr` that is an operand


class Type:
    """Types are equal where their names are."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name, self.make = name, make

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __call__(self, value: Any) -> "Constant":
        return Constant(self, value)

    def as_pointer(self, addrspace: int = 0) -> "PointerType":
        return PointerType(self, addrspace)


class PointerType(Type):
    def __init__(self, pointee: Type, addrspace: int = 0) -> None:
        super().__init__(f"{pointee.name} {addrspace}*", lambda: llvm.PointerType.get(addrspace))
        self.pointee, self.addrspace = pointee, addrspace


class VectorType(Type):
    def __init__(self, element: Type, count: int) -> None:
        super().__init__(f"<{count} x {element.name}>", lambda: mlir.VectorType.get([count], element.make()))
        self.element = element


class ArrayType(Type):
    def __init__(self, element: Type, count: int) -> None:
        super().__init__(f"[{count} x {element.name}]", lambda: llvm.ArrayType.get(element.make(), count))
        self.element = element


class LiteralStructType(Type):
    def __init__(self, elements: list[Type]) -> None:
        names = ", ".join(one.name for one in elements)
        super().__init__(f"{{{names}}}", lambda: llvm.StructType.get_literal([one.make() for one in elements]))
        self.elements = elements


def int_type(bits: int) -> Type:
    return Type(f"i{bits}", lambda: mlir.IntegerType.get_signless(bits))


FLOAT, DOUBLE, HALF, VOID = Type("float", T.f32), Type("double", T.f64), Type("half", T.f16), Type("void", lambda: None)


class Value:
    """A type and an MLIR value; of a tuple a tuple of values."""

    def __init__(self, type: Any, value: Any) -> None:
        self.type, self.value = type, value

    def get(self) -> Any:
        return self.value


class Undefined:
    """The value of a constant that has none."""


class Constant(Value):
    """A number; it is emitted where it is used."""

    def get(self) -> Any:
        if self.value is Undefined:
            return llvm.mlir_undef(self.type.make())
        if self.type.name[0] != "i":
            return arith.constant(self.type.make(), float(self.value))
        half = 1 << (int(self.type.name[1:]) - 1)
        return arith.constant(self.type.make(), (int(self.value) + half) % (2 * half) - half)


class FunctionType:
    def __init__(self, result: Type, arguments: Any) -> None:
        self.result = result


class InlineAsm:
    def __init__(self, kind: FunctionType, text: str, constraints: str, side_effect: bool = False) -> None:
        self.kind, self.text, self.constraints, self.side_effect = kind, text, constraints, side_effect


class Function:
    """One of LLVM's intrinsics."""

    def __init__(self, module: Any, kind: FunctionType, name: str) -> None:
        self.kind, self.name = kind, name


class GlobalVariable(Value):
    """Dynamic shared memory: external, aligned to 16 bytes."""

    def __init__(self, module: "Module", kind: ArrayType, name: str, addrspace: int) -> None:
        super().__init__(PointerType(kind, addrspace), name)
        module.globals[name] = self
        with mlir.InsertionPoint.at_block_begin(module.gpu.bodyRegion.blocks[0]):
            linkage = mlir.Attribute.parse("#llvm.linkage<external>")
            llvm.GlobalOp(kind.make(), name, linkage, addr_space=addrspace, alignment=16)

    def get(self) -> Any:
        return llvm.mlir_addressof(self.type.make(), self.value)


class Module:
    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        self.globals: dict[str, GlobalVariable] = {}

    def declare_intrinsic(self, name: str, kinds: Any, kind: FunctionType) -> Function:
        return Function(self, kind, name)


def _binary(operation: Any) -> Any:
    return lambda self, a, b: Value(a.type, operation(a.get(), b.get()))


def _cast(operation: Any) -> Any:
    return lambda self, a, kind: Value(kind, operation(kind.make(), a.get()))


def _compare(operation: Any, predicates: Any, names: dict[str, str]) -> Any:
    return lambda self, how, a, b: Value(int_type(1), operation(getattr(predicates, names[how]), a.get(), b.get()))


class IRBuilder:
    """Emits at the place where the compiler is lowering a call."""

    def __init__(self, lower: Any) -> None:
        module = getattr(lower, "module_of_intrinsics", None)
        self.module = lower.module_of_intrinsics = module or Module(lower.mlir_gpu_module)

    add, sub, mul, udiv, urem = map(_binary, (arith.addi, arith.subi, arith.muli, arith.divui, arith.remui))
    xor, and_, or_, shl, lshr = map(_binary, (arith.xori, arith.andi, arith.ori, arith.shli, arith.shrui))
    fadd, fsub, fmul = map(_binary, (arith.addf, arith.subf, arith.mulf))
    zext, sext, trunc, fpext, fptrunc = map(_cast, (arith.extui, arith.extsi, arith.trunci, arith.extf, arith.truncf))
    inttoptr, ptrtoint, addrspacecast = map(_cast, (llvm.inttoptr, llvm.ptrtoint, llvm.addrspacecast))
    icmp_unsigned = _compare(arith.cmpi, arith.CmpIPredicate, {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "eq"})
    fcmp_ordered = _compare(arith.cmpf, arith.CmpFPredicate, {"<": "OLT", ">": "OGT", ">=": "OGE"})
    fcmp_unordered = _compare(arith.cmpf, arith.CmpFPredicate, {"<": "ULT", ">": "UGT"})

    def bitcast(self, a: Value, kind: Type) -> Value:
        return Value(kind, a.get() if isinstance(kind, PointerType) else arith.bitcast(kind.make(), a.get()))

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return Value(a.type, arith.select(condition.get(), a.get(), b.get()))

    def gep(self, start: Value, indices: list[Value]) -> Value:
        element = start.type.pointee
        if isinstance(element, ArrayType):  # [0, index]
            element, indices = element.element, indices[1:]
        given = [index.get() for index in indices]
        made = llvm.getelementptr(start.type.make(), start.get(), given, [DYNAMIC], element.make(), None)
        return Value(PointerType(element, start.type.addrspace), made)

    def load(self, place: Value, align: int) -> Value:
        return Value(place.type.pointee, llvm.load(place.type.pointee.make(), place.get(), alignment=align))

    def store(self, value: Value, place: Value, align: int) -> None:
        llvm.store(value.get(), place.get(), alignment=align)

    def extract_element(self, v: Value, index: Constant) -> Value:
        return Value(v.type.element, vector.extract(v.get(), [], [index.value]))

    def insert_element(self, v: Value, value: Value, index: Constant) -> Value:
        return Value(v.type, vector.insert(value.get(), v.get(), [], [index.value]))

    def extract_value(self, aggregate: Value, i: int) -> Value:
        if isinstance(aggregate.value, tuple):
            return aggregate.value[i]  # type: ignore[no-any-return]
        kind = aggregate.type.elements[i]
        return Value(kind, llvm.extractvalue(kind.make(), aggregate.get(), [i]))

    def call(self, function: Any, arguments: Any) -> Value:
        values, result = [one.get() for one in arguments], function.kind.result
        if isinstance(function, InlineAsm):
            text, constraints, effect = function.text, function.constraints, function.side_effect
            return Value(result, llvm.inline_asm(result.make(), values, text, constraints, has_side_effects=effect))
        if function.name.startswith("llvm.fma"):
            return Value(result, mlir_math.fma(*values))
        if function.name.startswith("llvm.nvvm.fabs"):
            return Value(result, mlir_math.absf(*values))
        return Value(result, llvm.call_intrinsic(result.make(), function.name, values, [], []))


LLVMLITE = {
    **{one.__name__: one for one in (ArrayType, LiteralStructType, PointerType, Type, VectorType)},
    **{one.__name__: one for one in (Constant, Function, FunctionType, GlobalVariable, IRBuilder, InlineAsm, Module)},
    **{one.__name__: one for one in (Undefined, Value)},
    "IntType": int_type,
    "FloatType": lambda: FLOAT,
    "DoubleType": lambda: DOUBLE,
    "HalfType": lambda: HALF,
    "VoidType": lambda: VOID,
}


def stored_as(kind: Any) -> Type:
    """Gives the type as which numba-cuda stores a type of its own."""
    if isinstance(kind, types.CPointer):
        return PointerType(stored_as(kind.dtype))
    if isinstance(kind, types.Integer):
        return int_type(kind.bitwidth)
    return {types.float16: int_type(16), types.float32: FLOAT, types.float64: DOUBLE}[kind]


class Context:
    """The compiler, as far as intrinsics ask it."""

    def __init__(self, lower: Any) -> None:
        self.active_code_library = self
        self.use_cooperative = False

    def cast(self, builder: IRBuilder, value: Value, source: Any, target: Any) -> Value:
        if source == target:
            return value
        kind, signed = stored_as(target), getattr(source, "signed", False)
        if isinstance(source, types.Integer):
            widen, narrow = builder.sext if signed else builder.zext, builder.trunc
        else:
            widen, narrow = builder.fpext, builder.fptrunc
        if source.bitwidth == target.bitwidth:
            return value
        return (widen if source.bitwidth < target.bitwidth else narrow)(value, kind)

    def make_tuple(self, builder: IRBuilder, kind: Any, values: Any) -> Value:
        return Value(kind, tuple(values))

    def get_dummy_value(self) -> None:
        return None

    def get_constant_null(self, kind: Any) -> Value:
        if not isinstance(kind, types.UniTuple):
            return Constant(stored_as(kind), 0)
        return Value(kind, tuple(Constant(stored_as(kind.dtype), 0) for _ in range(kind.count)))


def given(kind: Any, value: Any) -> Value:
    if isinstance(kind, types.BaseTuple):
        return Value(kind, tuple(given(one, part) for one, part in zip(kind, value, strict=True)))
    stored = stored_as(kind)
    return Value(stored, value if isinstance(stored, PointerType) else convert(value, stored.make()))


def made(value: Value) -> Any:
    return tuple(map(made, value.value)) if isinstance(value.value, tuple) else value.get()


def intrinsic(define: Any) -> Any:
    """Takes what numba-cuda's `intrinsic` takes: a function that gives a signature and what emits code."""

    @wraps(define)  # the compiler looks at the names of its arguments
    def function(typingctx: Any, *arguments: Any) -> Any:
        signature, code = define(typingctx, *arguments)
        whole = len(signature.args) == 1 and isinstance(signature.args[0], (StarArgTuple, StarArgUniTuple))
        if whole:
            signature = signature.return_type(*arguments)

        def lowered(lower: Any, target: Any, variables: Any, kwargs: Any) -> None:
            builder, context = IRBuilder(lower), Context(lower)
            values = []
            for kind, variable in zip(signature.args, variables, strict=True):
                source = lower.get_numba_type(variable.name)
                source = source.literal_type if isinstance(source, types.Literal) else source
                value = given(source, lower.load_var(variable))
                values.append(context.cast(builder, value, source, kind) if isinstance(kind, types.Number) else value)
            result = code(context, builder, signature, [Value(None, tuple(values))] if whole else values)
            lower.store_var(target, None if result is None else made(result))

        return signature, lowered

    return mlir_intrinsic(function)


class Compiled:
    """A kernel's code for a compute capability, as `ptx_emulator.compile` has it."""

    def __init__(self, kernel: Any, cc: tuple[int, int]) -> None:
        from ptx_emulator.table import DEVICES

        threads = next(one.threads_per_multiprocessor for one in DEVICES.values() if one.compute_capability == cc)
        bounds = (kernel.threads, min(kernel.blocks_per_multiprocessor, threads // kernel.threads))
        tools._cached_cc, self._cc = cc, cc
        refresh_registries()
        options = {"device": False, "abi": "numba", "cc": cc, "launch_bounds": bounds}
        text, _ = mlir_compiler.compile(kernel.function, kernel.signature, **options)
        self.ptx = text.rstrip("\0")
        self.entry = re.findall(r"\.visible \.entry (\w+)", self.ptx)[0]

    @cached_property
    def cubin(self) -> bytes:
        from cuda.core import Linker, LinkerOptions, ObjectCode

        arch = "sm_{}{}{}".format(*self._cc, "a" if self._cc >= (9, 0) else "")
        return bytes(Linker(ObjectCode.from_ptx(self.ptx.encode()), options=LinkerOptions(arch=arch)).link("cubin").code)


def install() -> None:
    """Has the CUDA backend compiled by numba-cuda-mlir, in this process, from its first import on."""
    types.StarArgTuple, types.NamedTuple = StarArgTuple, NamedTuple  # which `types` does not export
    llvmlite, ir, compiler = ModuleType("llvmlite"), ModuleType("llvmlite.ir"), ModuleType("gpurnn_kernels.cuda.compiler")
    vars(ir).update(LLVMLITE)
    vars(llvmlite).update(ir=ir)
    inlined = cuda.jit(device=True, inline="always")
    vars(compiler).update(cuda=cuda, types=types, intrinsic=intrinsic, inlined=inlined, driver=None)
    sys.modules.update({one.__name__: one for one in (llvmlite, ir, compiler)})

    from ptx_emulator import compile

    compile.Compiled = Compiled
