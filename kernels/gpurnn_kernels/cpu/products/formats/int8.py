"""8-bit integers: four to a packet. Sums are exact, so that the order of k does not matter.

Weights are signed, with a scale for each of a matrix's rows: the row's largest is 127. The two packets before a packed row
are its scale and the integer that its sums start from. Rows of x and h are unsigned with the zero point 128, and have a scale
of their own each, in the 4 bytes before the row: a row depends on nothing beside it. The sums start from -128 times the sum of
the row's weights, which takes the zero point out; with `sdot`, which takes it out of each byte, from 0. A NaN or an infinity
makes the scale of its row NaN.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ....quantised import LARGEST, Quantised, quantised
from ....spec import Array
from ...codegen.bundle import pointwise
from ...codegen.target import target
from ...codegen.vector import INT32, INT64, Vector, Vectors
from .format import Format, Packets, Sums, each_vector, over_rows
from .instructions import DOTS

_ZERO_POINT = 128
_MAGIC = 1.5 * 2**23  # added to a number below 2**22, it leaves the nearest integer in the low bits
_MOST_FACTOR = 3e38  # the largest factor: an infinite one, of a row of tiny numbers, would turn zeros into NaN


class Fours(Packets):
    """Vectors of packets of four 8-bit integers each, and of 32-bit sums of their products."""

    def __init__(self, builder: ir.IRBuilder, element: types.Float) -> None:
        super().__init__(builder, element)
        self._floats = Vectors(builder, element)
        self.element, self.type = INT32, self.integer

    @property
    def floats(self) -> Vectors:
        return self._floats

    def start(self, panel: ir.Value, width: int, index: int) -> Vector:
        if self.machine.dot == "sdot":  # which takes the zero point out of each byte
            return Vector(self, ir.Constant(self.type, None))
        return self.load(panel, width + index)

    def totals(self, sums: Sums, panels: list[ir.Value], width: int, rows: list[ir.Value]) -> Sums:
        f, found = self._floats, {}
        scales = {(p, u): f.load(panel, u) for p, panel in enumerate(panels) for u in range(width)}
        for m, row in enumerate(rows):
            of_row = f.broadcast(self.builder.sub(row, INT64(4)))
            for (p, u), scale in scales.items():
                exact = Vector(f, self.builder.sitofp(sums[m, p, u].value, f.type))
                found[m, p, u] = exact * (scale * of_row)
        return found

    def multiply_add(self, row: Vector, weights: Vector, total: Vector) -> Vector:
        return Vector(self, DOTS[self.machine.dot](self, row.value, weights.value, total.value))


@pointwise
def quantise_row(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Makes bytes of `count` numbers, the largest +-127, and the row's scale before them. The largest is found among the
    bits of magnitudes: those of infinity and NaN are larger than all others."""
    if v.bits == 64:  # `forward` is compiled for float64, too, whose layers have no such format
        return
    b = v.builder
    mask = v.integers(0x7FFFFFFF)
    place = cgutils.alloca_once(b, v.integer)
    b.store(ir.Constant(v.integer, None), place)

    def larger(value: Vector, index: ir.Value) -> None:
        bits, found = b.and_(b.bitcast(value.value, v.integer), mask), b.load(place)
        b.store(b.select(b.icmp_unsigned(">", bits, found), bits, found), place)

    each_vector(v, source, count, larger)
    kind = ir.FunctionType(INT32, [v.integer])
    reduce = cgutils.get_or_insert_function(b.module, kind, f"llvm.vector.reduce.umax.v{v.lanes}i32")
    largest = b.bitcast(b.call(reduce, [b.load(place)]), v.element)

    def number(value: float) -> ir.Constant:
        return ir.Constant(v.element, float(np.float32(value)))

    nothing = b.fsub(largest, largest)  # NaN of an infinity or a NaN
    scale = b.fadd(b.fmul(largest, number(1 / LARGEST)), nothing)
    b.store(scale, b.inttoptr(b.sub(to, INT64(4)), v.element.as_pointer()))
    factor = b.fdiv(number(LARGEST), largest)
    factor = v.splat(b.select(b.fcmp_ordered("<", factor, number(_MOST_FACTOR)), factor, number(_MOST_FACTOR)))
    magic, narrow = v.constant(_MAGIC + _ZERO_POINT), ir.VectorType(ir.IntType(8), v.lanes)

    def store(value: Vector, index: ir.Value) -> None:
        bits = b.bitcast(v.fma(value, factor, magic).value, v.integer)
        at = b.add(to, b.mul(index, INT64(v.lanes)))
        b.store(b.trunc(bits, narrow), b.inttoptr(at, narrow.as_pointer()), align=1)

    each_vector(v, source, count, store)


def encoded(matrix: Array | Quantised) -> Array:
    """Gives a matrix of numbers as rows of packets, each with its scale and what its sums start from before it."""
    integers = matrix if isinstance(matrix, Quantised) else quantised(matrix)
    values, scales = integers.values, integers.scales
    rows, count = values.shape
    found = np.zeros((rows, 4 * INT8.columns(count)), np.int8)
    words = found.view(np.int32)
    words[:, 0] = scales.view(np.int32)
    words[:, 1] = -_ZERO_POINT * values.sum(1, dtype=np.int32)
    found[:, 4 * INT8.head :][:, :count] = values
    return found.view(np.float32)


INT8 = Format(
    "int8",
    numbers=4,
    packets=Fours,
    encoded=encoded,
    convert=over_rows("quantise_rows", quantise_row),
    head=2,
    exact=True,
    split=target().dot in ("pmaddwd", ""),
    how=target().dot or "32-bit arithmetic",
)
