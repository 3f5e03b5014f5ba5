"""A `Format` is how the products of a layer hold numbers: as they are, or rounded to fewer bits.

Products read *packets* of 4 bytes (8 of float64). A packet holds one number, two or four, of neighbouring k. Weights are
packed as a matrix of packets, (rows, head + packets of K), by the same kernels for all formats. The first `head` packets of a
row say how its numbers are scaled. Rows of x and h are converted before a product reads them. Each thread converts for itself,
since that is far less work than the product. Slots, states and the cell equations stay in the element type.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from ....spec import Array
from ...codegen.inline import named
from ...codegen.intrinsics import load_word
from ...codegen.target import LINE, Target
from ...codegen.vector import INT64, Vector, Vectors

Position = tuple[int, int, int]  # row, panel, vector
Sums = dict[Position, Vector]


class Packets(Vectors):
    """Vectors of packets while a tile is emitted."""

    def weights(self, address: ir.Value, index: int) -> Any:
        """Gives a vector of packets of weights as `multiply_add` takes it."""
        return self.load(address, index)

    def row(self, address: ir.Value) -> Any:
        """Gives a row's packet, in every lane, as `multiply_add` takes it."""
        return self.broadcast(address)

    def multiply_add(self, row: Any, weights: Any, total: Vector) -> Vector:
        """Adds the products of the numbers of two packets to a total."""
        return self.fma(row, weights, total)

    @property
    def floats(self) -> Vectors:
        """The vectors of totals, which are floats."""
        return self

    def start(self, panel: ir.Value, width: int, index: int) -> Vector:
        """Gives the value that the sums of a panel's vector start from. panel: the address of the panel, `width` vectors
        wide."""
        return self.zero()

    def totals(self, sums: Sums, panels: list[ir.Value], width: int, rows: list[ir.Value]) -> Sums:
        """Gives the sums as floats. panels, rows: the addresses of the panels and of the rows that were multiplied."""
        return sums


@dataclass(frozen=True)
class Format:
    """A format of products."""

    name: str  # a layer's `precision`, or "float" without one
    numbers: int  # of a packet
    packets: type[Packets]
    encoded: Callable[[Any], Array] = lambda matrix: matrix
    """Gives a matrix (rows, K) of numbers in the format, row after row: (rows, head + packets of K), of the matrix's dtype."""
    convert: Callable[..., None] | None = None
    """The kernel convert(zero, arguments). The arguments are to, to_row, source, source_row, rows, count. It converts `rows`
    rows of `count` numbers each. None where products read rows as they are."""
    head: int = 0  # packets before the numbers of a packed row
    exact: bool = False  # sums have no rounding, and need no segments
    split: bool = False  # a tile has two registers for a vector of packets, and two for a row's packet
    row_packet: int | None = None  # bytes of a packet of a row, where they are not those of an element
    how: str = ""  # the instructions that multiply, for plan()

    def wide(self, depth: int, machine: Target) -> int:
        """Gives the vectors of a wide panel of this depth: two where tiles of four would be low, for want of registers."""
        if self.split:
            return 2
        # of several numbers a packet, four vectors are the faster ones even where L1 does not hold them
        return 4 if self.reduced and machine.registers == 32 else machine.wide(depth)

    @property
    def reduced(self) -> bool:
        """Tells whether factors are rounded to fewer bits."""
        return self.convert is not None

    def depth(self, count: int) -> int:
        """Gives the packets of `count` numbers."""
        return -(-count // self.numbers)

    def columns(self, count: int) -> int:
        """Gives the packets of a packed row of `count` numbers."""
        return self.head + self.depth(count)

    @property
    def row_head(self) -> int:
        """The bytes before a converted row. They keep rows off the same lines of the cache; int8 has the row's scale there."""
        return LINE if self.reduced else 0

    def row_bytes(self, count: int, itemsize: int, vector: int) -> int:
        """Gives the bytes of a row of `count` numbers in scratch memory."""
        line = max(LINE, vector) if self.reduced else vector
        return self.row_head + -(-self.depth(count) * (self.row_packet or itemsize) // line) * line


def each_vector(v: Vectors, source: ir.Value, count: ir.Value, run: Callable[[Vector, ir.Value], None]) -> None:
    """Emits run(vector, its index) for the vectors of `count` elements, the last one with zeros past them."""
    b = v.builder
    whole, rest = b.udiv(count, INT64(v.lanes)), b.urem(count, INT64(v.lanes))
    with cgutils.for_range(b, whole) as loop:
        run(v.load(b.add(source, b.mul(loop.index, INT64(v.size)))), loop.index)
    with b.if_then(b.icmp_signed("!=", rest, INT64(0))):
        run(v.load_first(b.add(source, b.mul(whole, INT64(v.size))), rest), whole)


def over_rows(name: str, convert_row: Any) -> Callable[..., None]:
    """Makes a format's kernel `convert` of an intrinsic convert_row(zero, (to, source, count))."""

    def convert(zero, words):
        to, to_row, source, source_row = load_word(words), load_word(words + 8), load_word(words + 16), load_word(words + 24)
        rows, count = load_word(words + 32), load_word(words + 40)
        for m in range(rows):
            convert_row(zero, (to + m * to_row, source + m * source_row, count))

    return named(name, convert)
