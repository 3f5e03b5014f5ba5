"""bfloat16: weights, x and h are rounded to it where they are multiplied, to nearest even. A packet holds two of them, and
sums are float32.

The processor's instruction is two multiply-adds, each rounded, that of the odd k first. Without it, two multiply-adds in this
order give the same bits. It takes denormal numbers for zeros, and so does rounding here.
"""

import numpy as np
from llvmlite import ir

from ....quantised import BF16_NAN, LEAST_NORMAL, as_bf16
from ....spec import Array
from ...codegen.bundle import pointwise
from ...codegen.target import target
from ...codegen.vector import INT64, Vector, Vectors
from .format import Format, Packets, each_vector, over_rows
from .instructions import dot_bf16, rounded_bf16

_HIGH = 0xFFFF0000  # the bits of a float that bfloat16 has


class Pairs(Packets):
    """Vectors of packets of two bfloat16 each, for the processor's instruction."""

    def multiply_add(self, row: Vector, weights: Vector, total: Vector) -> Vector:
        return Vector(self, dot_bf16(self, row.value, weights.value, total.value))


class Halves(Packets):
    """Vectors of packets of two bfloat16 each, multiplied without the instruction: rows are floats, rounded to bfloat16."""

    def weights(self, address: ir.Value, index: int) -> tuple[Vector, Vector]:
        b = self.builder
        bits = b.bitcast(self.load(address, index).value, self.integer)
        even, odd = b.shl(bits, self.integers(16)), b.and_(bits, self.integers(_HIGH))
        return Vector(self, b.bitcast(even, self.type)), Vector(self, b.bitcast(odd, self.type))

    def row(self, address: ir.Value) -> tuple[Vector, Vector]:
        return self.broadcast(address), self.broadcast(self.at(address, self.itemsize))

    def multiply_add(self, row: tuple[Vector, Vector], weights: tuple[Vector, Vector], total: Vector) -> Vector:
        for a, b in zip(reversed(row), reversed(weights), strict=True):
            total = self.fma(a, b, total)
        return total


def rounded(v: Vectors, value: Vector) -> Vector:
    """Emits the rounding of floats to bfloat16: floats whose low half is zero."""
    b = v.builder
    bits = b.bitcast(value.value, v.integer)
    last = b.and_(b.lshr(bits, v.integers(16)), v.integers(1))
    high = b.and_(b.add(b.add(bits, v.integers(0x7FFF)), last), v.integers(_HIGH))
    small = b.icmp_unsigned("<", b.and_(bits, v.integers(0x7FFFFFFF)), v.integers(LEAST_NORMAL))
    high = b.select(small, b.and_(bits, v.integers(1 << 31)), high)
    high = b.select(b.fcmp_unordered("uno", value.value, value.value), v.integers(BF16_NAN << 16), high)
    return Vector(v, b.bitcast(high, v.type))


@pointwise
def round_row(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Rounds `count` numbers to bfloat16, with zeros up to a whole vector."""
    if v.bits == 64:  # `forward` is compiled for float64, too, whose layers have no such format
        return
    b = v.builder

    def store(value: Vector, index: ir.Value) -> None:
        if v.machine.bf16:
            found, size = rounded_bf16(v, value.value), v.size // 2
        else:
            found, size = rounded(v, value).value, v.size
        b.store(found, b.inttoptr(b.add(to, b.mul(index, INT64(size))), found.type.as_pointer()), align=2)

    each_vector(v, source, count, store)


def encoded(matrix: Array) -> Array:
    """Gives a matrix of numbers as rows of packets."""
    rows, count = matrix.shape
    found = np.zeros((rows, -(-count // 2) * 2), np.uint16)
    found[:, :count] = as_bf16(matrix)
    return found.view(np.float32)


BF16 = Format(
    "bf16",
    numbers=2,
    packets=Pairs if target().bf16 else Halves,
    encoded=encoded,
    convert=over_rows("round_rows", round_row),
    split=not target().bf16,
    row_packet=None if target().bf16 else 8,
    how="vdpbf16ps" if target().bf16 else "float32 arithmetic",
)
