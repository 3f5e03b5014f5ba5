"""Where a block's share of W_h (G*H, H) stands: the layer's natural layout, read once per launch."""

from collections.abc import Callable

from . import llvm
from .llvm import FLOAT, INT16, INT32, INT64, ir
from .operand import Operand
from .tensor_tile import TensorTile
from .tile import Tile, Weight


def _row(builder: ir.IRBuilder, first: ir.Value, row: ir.Value, units: int, gates: range, hidden: int, other: int) -> ir.Value:
    """Row of a block, gate by gate, unit by unit -> row of W_h; `other` if the layer has none."""
    gate = builder.udiv(row, INT32(units))
    unit = builder.add(first, builder.sub(row, builder.mul(gate, INT32(units))))
    exists = builder.and_(builder.icmp_unsigned("<", gate, INT32(len(gates))), builder.icmp_unsigned("<", unit, INT32(hidden)))
    found = builder.add(builder.mul(builder.add(gate, INT32(gates.start)), INT32(hidden)), unit)
    return builder.select(exists, found, INT32(other))


def _element(builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
    """base + index, which counts up to 2**32 elements."""
    return builder.gep(base, [builder.zext(index, INT64)])


def _paired(builder: ir.IRBuilder, halves: list[ir.Value]) -> list[ir.Value]:
    """The bits of neighbours in words, the first in the lower half."""
    wide = [builder.zext(half, INT32) for half in halves]
    pairs = zip(wide[::2], wide[1::2], strict=True)
    return [builder.bitcast(builder.or_(low, builder.shl(high, INT32(16))), FLOAT) for low, high in pairs]


def gate_rows(
    tile: Tile | TensorTile, operand: Operand, hidden: int, units: int, gates: range, splits: int, aligned: bool
) -> Callable[[ir.Value], Weight]:
    """Rows (gate, unit) of the block's units, k along the row: what the forward pass multiplies h with. Zero past its end.

    Rows that the block does not have repeat another: their sums are not read. splits: warps that share k; aligned: rows lie
    at multiples of 16 bytes.
    """
    per_word, item = operand.per_word, operand.item
    stored = FLOAT if per_word == 1 else INT16

    def certain(further: int) -> bool:
        """Tells whether no lane of any warp reads past the end."""
        return (splits - 1) * tile.span + further + tile.span // tile.quads <= hidden

    def at(address: ir.Value) -> Weight:
        def fetch(builder: ir.IRBuilder, first: ir.Value, row: ir.Value, k: ir.Value, further: int) -> list[ir.Value]:
            base = llvm.global_pointer(builder, address, stored)
            start = builder.mul(_row(builder, first, row, units, gates, hidden, 0), INT32(hidden))

            def pointer(e: int) -> tuple[ir.Value, ir.Value | None]:
                """Returns a pointer to an element, and whether the row has it, if that is not certain."""
                if certain(further):  # the lane's place and a constant: one register for the addresses of a row
                    return builder.gep(_element(builder, base, builder.add(start, k)), [INT64(further + e)]), None
                there = builder.add(k, INT32(further + e))
                inside = builder.icmp_unsigned("<", there, INT32(hidden))
                return _element(builder, base, builder.add(start, builder.select(inside, there, INT32(0)))), inside

            def masked(value: ir.Value, inside: ir.Value | None) -> ir.Value:
                return value if inside is None else builder.select(inside, value, ir.Constant(value.type, 0))

            if aligned:
                place, inside = pointer(0)
                return [masked(value, inside) for value in llvm.load_quad(builder, place)]
            elements = []
            for e in range(4 * per_word):
                place, inside = pointer(e)
                elements.append(masked(builder.load(place, align=item), inside))
            return elements if per_word == 1 else _paired(builder, elements)

        return fetch

    return at


def gate_columns(hidden: int, units: int, gates: range) -> Callable[[ir.Value], Weight]:
    """Columns of W_h, k over the block's rows (gate, unit): what the backward pass multiplies gate gradients with.

    Rows that the block does not have repeat another: their gradients are zero. So do columns: their sums are not read.
    """

    def at(address: ir.Value) -> Weight:
        def fetch(builder: ir.IRBuilder, first: ir.Value, column: ir.Value, k: ir.Value, further: int) -> list[ir.Value]:
            base = llvm.global_pointer(builder, address, FLOAT)
            last = INT32(hidden - 1)
            column = builder.select(builder.icmp_unsigned("<", column, last), column, last)
            quad = []
            for e in range(4):
                row = _row(builder, first, builder.add(k, INT32(further + e)), units, gates, hidden, hidden - 1)
                start = builder.mul(row, INT32(hidden))
                quad.append(builder.load(_element(builder, base, builder.add(start, column)), align=4))
            return quad

        return fetch

    return at
