"""Where a block's share of W_h (G*H, H) stands: the layer's natural layout, read once per launch."""

from collections.abc import Callable

from llvmlite import ir

from . import emit
from .emit import FLOAT, INT16, INT32, INT64, ZERO
from .geometry import Geometry
from .tile import Weight


def _row(
    builder: ir.IRBuilder, first: ir.Value, row: ir.Value, units: int, gates: range, hidden: int
) -> tuple[ir.Value, ir.Value]:
    """Row of a block, gate by gate, unit by unit -> row of W_h, and whether there is one."""
    gate = builder.udiv(row, INT32(units))
    unit = builder.add(first, builder.sub(row, builder.mul(gate, INT32(units))))
    inside = builder.and_(builder.icmp_unsigned("<", gate, INT32(len(gates))), builder.icmp_unsigned("<", unit, INT32(hidden)))
    return builder.add(builder.mul(builder.add(gate, INT32(gates.start)), INT32(hidden)), unit), inside


def _element(builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
    """base + index, which counts up to 2**32 elements."""
    return builder.gep(base, [builder.zext(index, INT64)])


def _masked(builder: ir.IRBuilder, base: ir.Value, index: ir.Value, inside: ir.Value) -> ir.Value:
    """base[index], or zero."""
    pointer = _element(builder, base, builder.select(inside, index, INT32(0)))
    value = builder.load(pointer, align=4 if base.type.pointee == FLOAT else 2)
    return builder.select(inside, value, ir.Constant(value.type, 0))


def _paired(builder: ir.IRBuilder, halves: list[ir.Value]) -> list[ir.Value]:
    """The bits of neighbours in words, the first in the lower half."""
    wide = [builder.zext(half, INT32) for half in halves]
    pairs = zip(wide[::2], wide[1::2], strict=True)
    return [builder.bitcast(builder.or_(low, builder.shl(high, INT32(16))), FLOAT) for low, high in pairs]


def gate_rows(g: Geometry, gates: range) -> Callable[[ir.Value], Weight]:
    """Rows (gate, unit) of the block's units, k along the row: what the forward pass multiplies h with."""
    hidden, per_word = g.hidden, g.operand.per_word
    stored = FLOAT if per_word == 1 else INT16

    def at(address: ir.Value) -> Weight:
        def fetch(builder: ir.IRBuilder, first: ir.Value, row: ir.Value, k: ir.Value) -> list[ir.Value]:
            base = emit.global_pointer(builder, address, stored)
            row, exists = _row(builder, first, row, g.units, gates, hidden)
            index = builder.add(builder.mul(row, INT32(hidden)), k)
            if g.aligned:
                inside = builder.and_(exists, builder.icmp_unsigned("<", k, INT32(hidden)))
                quad = emit.load_quad(builder, _element(builder, base, builder.select(inside, index, INT32(0))))
                return [builder.select(inside, value, ZERO) for value in quad]
            elements = []
            for e in range(4 * per_word):
                inside = builder.and_(exists, builder.icmp_unsigned("<", builder.add(k, INT32(e)), INT32(hidden)))
                elements.append(_masked(builder, base, builder.add(index, INT32(e)), inside))
            return elements if per_word == 1 else _paired(builder, elements)

        return fetch

    return at


def gate_columns(hidden: int, units: int, gates: range) -> Callable[[ir.Value], Weight]:
    """Columns of W_h, k over the block's rows (gate, unit): what the backward pass multiplies gate gradients with.

    Rows that the block does not have repeat another: their gradients are zero. So do columns: their sums are not read.
    """

    def at(address: ir.Value) -> Weight:
        def fetch(builder: ir.IRBuilder, first: ir.Value, column: ir.Value, k: ir.Value) -> list[ir.Value]:
            base = emit.global_pointer(builder, address, FLOAT)
            last = INT32(hidden - 1)
            column = builder.select(builder.icmp_unsigned("<", column, last), column, last)
            quad = []
            for e in range(4):
                row, inside = _row(builder, first, builder.add(k, INT32(e)), units, gates, hidden)
                start = builder.mul(builder.select(inside, row, last), INT32(hidden))
                quad.append(builder.load(_element(builder, base, builder.add(start, column)), align=4))
            return quad

        return fetch

    return at
