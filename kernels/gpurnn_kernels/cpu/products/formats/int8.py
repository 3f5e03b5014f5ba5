"""8-bit integers: four to a word. Sums are exact, so that the order of k does not matter.

Weights are signed, with a scale for each of a matrix's rows: the row's largest is 127. The two words before a packed row are
its scale and the integer that its sums start from. Rows of x and h are unsigned with the zero point 128, and have a scale of
their own each, in the 4 bytes before the row: a row depends on nothing beside it. The sums start from -128 times the sum of
the row's weights, which takes the zero point out. A NaN or an infinity makes the scale of its row NaN.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from ....quantised import LARGEST, Quantised, quantised
from ....spec import Array
from ...codegen.bundle import pointwise
from ...codegen.target import target
from ...codegen.vector import INT32, INT64, Vector, Vectors
from .format import Format, Sums, Words, each_vector, over_rows

_ZERO_POINT = 128
_MAGIC = 1.5 * 2**23  # a float whose last bit counts ones
_MOST_FACTOR = 3e38  # of a row of tiny numbers: a factor that is infinite would make a NaN of zero


class Fours(Words):
    """Vectors of words of four 8-bit integers each, and of 32-bit sums of their products."""

    def __init__(self, builder: ir.IRBuilder, element: object) -> None:
        super().__init__(builder, element)  # type: ignore[arg-type]
        self._floats = Vectors(builder, element)  # type: ignore[arg-type]
        self.element, self.type = INT32, self.integer

    @property
    def floats(self) -> Vectors:
        return self._floats

    @property
    def _signed(self) -> bool:
        """Tells whether the instruction multiplies signed rows: their zero point is taken out before."""
        return self.machine.dot == "sdot"

    def start(self, panel: ir.Value, width: int, index: int) -> Vector:
        return Vector(self, ir.Constant(self.type, None)) if self._signed else self.load(panel, width + index)

    def totals(self, sums: Sums, panels: list[ir.Value], width: int, rows: list[ir.Value]) -> Sums:
        f, found = self._floats, {}
        scales = {(p, u): f.load(panel, u) for p, panel in enumerate(panels) for u in range(width)}
        for m, row in enumerate(rows):
            of_row = f.broadcast(self.builder.sub(row, INT64(4)))
            for (p, u), scale in scales.items():
                exact = Vector(f, self.builder.sitofp(sums[m, p, u].value, f.type))
                found[m, p, u] = exact * (scale * of_row)
        return found

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        dot = {"vnni": self._vnni, "sdot": self._sdot}.get(self.machine.dot, self._pairs if self.machine.x86 else self._each)
        return Vector(self, dot(a.value, b.value, c.value))

    def _vnni(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self._intrinsic(f"llvm.x86.avx512.vpdpbusd.{8 * self.size}", self.type, [c, a, b])

    def _sdot(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        kind = ir.VectorType(ir.IntType(8), 4 * self.lanes)
        a = self.builder.xor(a, ir.Constant(self.type, [0x80808080] * self.lanes))
        pair = [self.builder.bitcast(one, kind) for one in (b, a)]
        return self._intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", self.type, [c, *pair])

    def _pairs(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Multiplies and adds pairs of 16-bit numbers: those of even k, then those of odd k."""
        kind = ir.VectorType(ir.IntType(16), 2 * self.lanes)
        name = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}[self.size]
        a, b = (self.builder.bitcast(one, kind) for one in (a, b))
        eight, low = (ir.Constant(kind, [value] * (2 * self.lanes)) for value in (8, 0xFF))
        builder = self.builder
        even = builder.and_(a, low), builder.ashr(builder.shl(b, eight), eight)
        odd = builder.lshr(a, eight), builder.ashr(b, eight)
        for pair in (even, odd):
            c = builder.add(c, self._intrinsic(f"llvm.x86.{name}", self.type, list(pair)))
        return c

    def _each(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Multiplies 32-bit numbers."""
        builder = self.builder

        def every(value: int) -> ir.Constant:
            return ir.Constant(self.type, [value] * self.lanes)

        for byte in range(4):
            one = builder.and_(builder.lshr(a, every(8 * byte)), every(0xFF))
            other = builder.ashr(builder.shl(b, every(24 - 8 * byte)), every(24))
            c = builder.add(c, builder.mul(one, other))
        return c


@pointwise
def quantise_row(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Makes bytes of `count` numbers, the largest +-127, and the row's scale before them. The largest is found among the
    bits of magnitudes: those of infinity and NaN are larger than all others."""
    if v.bits == 64:
        return
    b = v.builder
    mask = ir.Constant(v.integer, [0x7FFFFFFF] * v.lanes)
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


def packed(matrix: Array | Quantised) -> Array:
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
    words=Fours,
    packed=packed,
    convert=over_rows("quantise_rows", quantise_row),
    head=2,
    split=not target().dot,
    how={"vnni": "vpdpbusd", "sdot": "sdot"}.get(target().dot, "16-bit arithmetic" if target().x86 else "32-bit arithmetic"),
)
