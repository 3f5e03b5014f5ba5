"""Numbers while a kernel is being emitted.

A `Value` stands for an LLVM scalar; arithmetic on it emits instructions. So plain Python functions (the cell equations, the
activations) run once, at compile time, and leave straight-line code behind: no literal is promoted to float64, no device
function is called. `Scalars` makes them, for the type that a kernel computes in.
"""

from __future__ import annotations

from .llvm import declared, ir


class Value:
    """An LLVM value and the `Scalars` it belongs to."""

    __slots__ = ("of", "value")

    def __init__(self, of: Scalars, value: ir.Value) -> None:
        self.of = of
        self.value = value

    def __add__(self, other: Value) -> Value:
        return Value(self.of, self.of.builder.fadd(self.value, other.value))

    def __sub__(self, other: Value) -> Value:
        return Value(self.of, self.of.builder.fsub(self.value, other.value))

    def __mul__(self, other: Value) -> Value:
        return Value(self.of, self.of.builder.fmul(self.value, other.value))


class Scalars:
    """Emits arithmetic of one float type, of 32 or 64 bits, into one kernel."""

    def __init__(self, builder: ir.IRBuilder, bits: int) -> None:
        self.builder = builder
        self.bits = bits
        self.type = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.integer = ir.IntType(bits)

    def constant(self, value: float) -> Value:
        return Value(self, ir.Constant(self.type, value))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return Value(self, self.call(f"llvm.fma.f{self.bits}", self.type, a.value, b.value, c.value))

    def minimum(self, a: Value, b: Value) -> Value:
        """The smaller; a NaN in `a` comes through (llvm.minnum would swallow it)."""
        return Value(self, self.builder.select(self.builder.fcmp_unordered("<", a.value, b.value), a.value, b.value))

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger; a NaN in `a` comes through."""
        return Value(self, self.builder.select(self.builder.fcmp_unordered(">", a.value, b.value), a.value, b.value))

    def negative(self, a: Value) -> Value:
        return self.constant(-0.0) - a  # NVVM does not know fneg

    def absolute(self, a: Value) -> Value:
        return Value(self, self.call("llvm.nvvm.fabs.f" if self.bits == 32 else "llvm.nvvm.fabs.d", self.type, a.value))

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        return self.instruction(f"copysign.f{self.bits}", sign, magnitude)

    def exponent(self, biased: Value) -> Value:
        """2**n where the low bits of `biased` hold n plus the exponent's bias."""
        shift = self.integer(23 if self.bits == 32 else 52)
        shifted = self.builder.shl(self.builder.bitcast(biased.value, self.integer), shift)
        return Value(self, self.builder.bitcast(shifted, self.type))

    def by_sign(self, x: Value, positive: Value, other: Value) -> Value:
        """`positive` where x > 0, else `other`."""
        return self.select(self.builder.fcmp_ordered(">", x.value, self.constant(0.0).value), positive, other)

    def select(self, condition: ir.Value, a: Value, b: Value) -> Value:
        return Value(self, self.builder.select(condition, a.value, b.value))

    def instruction(self, name: str, *operands: Value) -> Value:
        """A PTX instruction of numbers."""
        letter = "f" if self.bits == 32 else "d"
        text = f"{name} {', '.join(f'${i}' for i in range(len(operands) + 1))};"
        function = ir.FunctionType(self.type, [self.type] * len(operands))
        constraints = ",".join([f"={letter}", *letter * len(operands)])
        return Value(self, self.builder.call(ir.InlineAsm(function, text, constraints), [a.value for a in operands]))

    def call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """One of LLVM's intrinsics."""
        function = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(declared(self.builder.module, function, name), arguments)
