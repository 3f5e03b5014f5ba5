"""bfloat16: weights, x and h are rounded to it where they are multiplied, to nearest even. A word holds two; sums are float32.

The processor's instruction is two multiply-adds, each rounded, that of the odd k first. Without it, two multiply-adds in this
order give the same bits. It takes denormal numbers for zeros, and so does rounding here.
"""

import numpy as np
from llvmlite import ir

from ....spec import Array
from ...codegen.bundle import pointwise
from ...codegen.target import target
from ...codegen.vector import INT64, Vector, Vectors
from .format import Format, Words, each_vector, over_rows
from .instructions import dot_bf16, rounded_bf16

_NAN = 0x7FC0
_LEAST = 0x00800000  # bits of the least float that is not denormal


class Pairs(Words):
    """Vectors of words of two bfloat16 each."""

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        if self.machine.bf16:
            return Vector(self, dot_bf16(self, a.value, b.value, c.value))
        for half in (self._odd, self._even):
            c = super().fma(half(a), half(b), c)
        return c

    def _even(self, word: Vector) -> Vector:
        """Gives the number of the low half."""
        bits = self.builder.bitcast(word.value, self.integer)
        return Vector(self, self.builder.bitcast(self.builder.shl(bits, _every(self, 16)), self.type))

    def _odd(self, word: Vector) -> Vector:
        """Gives the number of the high half."""
        bits = self.builder.bitcast(word.value, self.integer)
        return Vector(self, self.builder.bitcast(self.builder.and_(bits, _every(self, 0xFFFF0000)), self.type))


def _every(v: Vectors, value: int) -> ir.Constant:
    return ir.Constant(v.integer, [value] * v.lanes)


def rounded(v: Vectors, value: Vector) -> ir.Value:
    """Emits the rounding of a vector of floats to bfloat16; -> a vector of 16-bit integers."""
    if v.machine.bf16:
        return rounded_bf16(v, value.value)
    b = v.builder
    bits = b.bitcast(value.value, v.integer)
    last = b.and_(b.lshr(bits, _every(v, 16)), _every(v, 1))
    high = b.lshr(b.add(b.add(bits, _every(v, 0x7FFF)), last), _every(v, 16))
    small = b.icmp_unsigned("<", b.and_(bits, _every(v, 0x7FFFFFFF)), _every(v, _LEAST))
    high = b.select(small, b.lshr(b.and_(bits, _every(v, 1 << 31)), _every(v, 16)), high)
    high = b.select(b.fcmp_unordered("uno", value.value, value.value), _every(v, _NAN), high)
    return b.trunc(high, ir.VectorType(ir.IntType(16), v.lanes))


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


def as_bf16(matrix: Array) -> Array:
    """Gives numbers as bfloat16, the bits of each in a uint16: rounded to nearest even, denormal ones to zero."""
    bits = np.ascontiguousarray(matrix, np.float32).view(np.uint32)
    magnitude = bits & 0x7FFFFFFF
    found = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    found = np.where(magnitude < _LEAST, (bits >> 16 & 0x8000).astype(np.uint16), found)
    return np.where(magnitude > 0x7F800000, np.uint16(_NAN), found)


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
