"""bfloat16: weights, x and h are rounded to it where they are multiplied, to nearest even. A word holds two; sums are float32.

The processor's instruction is two multiply-adds, each rounded, that of the odd k first. Without it, two multiply-adds in this
order give the same bits. It takes denormal numbers for zeros, and so does rounding here.
"""

import numpy as np
from llvmlite import ir

from ....quantised import as_bf16
from ....spec import Array
from ...codegen.bundle import pointwise
from ...codegen.target import target
from ...codegen.vector import INT64, Vector, Vectors
from .format import Format, Words, each_vector, over_rows

_NAN = 0x7FC0
_LEAST = 0x00800000  # bits of the least float that is not denormal


class _BFloat(ir.Type):  # type: ignore[misc]
    """The type that llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


class Pairs(Words):
    """Vectors of words of two bfloat16 each."""

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        if self.machine.bf16:
            kind = ir.VectorType(_BFloat(), 2 * self.lanes)
            one, other = (self.builder.bitcast(each.value, kind) for each in (a, b))
            return Vector(self, self._intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", self.type, [c.value, one, other]))
        for half in (self._odd, self._even):
            c = super().fma(half(a), half(b), c)
        return c

    def _even(self, word: Vector) -> Vector:
        """Gives the number of the low half."""
        return self._integers(word, lambda bits: self.builder.shl(bits, self._every(16)))

    def _odd(self, word: Vector) -> Vector:
        """Gives the number of the high half."""
        return self._integers(word, lambda bits: self.builder.and_(bits, self._every(0xFFFF0000)))

    def _integers(self, word: Vector, change: object) -> Vector:
        bits = change(self.builder.bitcast(word.value, self.integer))  # type: ignore[operator]
        return Vector(self, self.builder.bitcast(bits, self.type))

    def _every(self, value: int) -> ir.Constant:
        return ir.Constant(self.integer, [value] * self.lanes)


def rounded(v: Vectors, value: Vector) -> ir.Value:
    """Emits the rounding of a vector of floats to bfloat16; -> a vector of 16-bit integers."""
    b, kind = v.builder, ir.VectorType(ir.IntType(16), v.lanes)
    if v.machine.bf16:
        narrow = ir.VectorType(_BFloat(), v.lanes)
        return b.bitcast(v._intrinsic("llvm.x86.avx512bf16.cvtneps2bf16.512", narrow, [value.value]), kind)

    def every(number: int) -> ir.Constant:
        return ir.Constant(v.integer, [number] * v.lanes)

    bits = b.bitcast(value.value, v.integer)
    last = b.and_(b.lshr(bits, every(16)), every(1))
    high = b.lshr(b.add(b.add(bits, every(0x7FFF)), last), every(16))
    small = b.icmp_unsigned("<", b.and_(bits, every(0x7FFFFFFF)), every(_LEAST))
    high = b.select(small, b.lshr(b.and_(bits, every(1 << 31)), every(16)), high)
    return b.trunc(b.select(b.fcmp_unordered("uno", value.value, value.value), every(_NAN), high), kind)


@pointwise
def round_row(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Rounds `count` numbers to bfloat16, with zeros up to a whole vector."""
    if v.bits == 64:
        return
    b = v.builder

    def store(value: Vector, index: ir.Value) -> None:
        found = rounded(v, value)
        at = b.add(to, b.mul(index, INT64(2 * v.lanes)))
        b.store(found, b.inttoptr(at, found.type.as_pointer()), align=2)

    each_vector(v, source, count, store)


def packed(matrix: Array) -> Array:
    rows, count = matrix.shape
    found = np.zeros((rows, -(-count // 2) * 2), np.uint16)
    found[:, :count] = as_bf16(matrix)
    return found.view(np.float32)


BF16 = Format(
    "bf16",
    numbers=2,
    words=Pairs,
    packed=packed,
    convert=over_rows("round_rows", round_row),
    split=not target().bf16,
    how="vdpbf16ps" if target().bf16 else "float32 arithmetic",
)
