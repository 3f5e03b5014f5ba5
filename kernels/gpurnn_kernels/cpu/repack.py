"""The loops of packing that NumPy is slow at: rows of a matrix into the lanes of vectors."""

from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import types

from .compile import entry
from .emission import pointwise
from .forward import V1
from .pointwise import copy_element
from .vector import INT32, INT64, Vector, Vectors


@pointwise
def transpose_square(v: Vectors, to: ir.Value, to_row: ir.Value, source: ir.Value, source_row: ir.Value) -> None:
    """Rows of one vector each, as many as it has lanes, into columns. Two rows half the square apart are merged lane by lane;
    after log2(lanes) rounds every lane is in place."""
    b, half = v.builder, v.lanes // 2
    rows = [v.load(b.add(source, b.mul(source_row, INT64(row)))).value for row in range(v.lanes)]
    merged = [
        ir.Constant(ir.VectorType(INT32, v.lanes), [start + lane // 2 + v.lanes * (lane % 2) for lane in range(v.lanes)])
        for start in (0, half)
    ]
    for _ in range(v.lanes.bit_length() - 1):
        rows = [b.shuffle_vector(rows[i], rows[i + half], order) for i in range(half) for order in merged]
    for column, value in enumerate(rows):
        v.store(b.add(to, b.mul(to_row, INT64(column))), Vector(v, value))


def _forward_panels(zero, item, out, matrix, gates, hidden_size, units, lanes, width, depth):  # type: ignore[no-untyped-def]
    """Of the first `units` units, out[panel][k][vector][lane] = matrix[gate * H + unit, k], vectors by block of units, then by
    gate. zero: of the element type, `item` bytes each; out, matrix: addresses."""
    vectors = -(-units // lanes) * len(gates)
    for vector in range(vectors):
        block, index = vector // len(gates), vector % len(gates)
        first = vector // width * width
        row = min(width, vectors - first) * lanes
        count = min(lanes, units - block * lanes)
        squares = depth // lanes * lanes if count == lanes and count * item == V1 else 0
        to = out + (first * depth + vector - first) * lanes * item
        source = matrix + (gates[index] * hidden_size + block * lanes) * depth * item
        for k in range(0, squares, lanes):
            transpose_square(zero, (to + k * row * item, row * item, source + k * item, depth * item))
        for k in range(squares, depth):
            for lane in range(count):
                copy_element(zero, (to + (k * row + lane) * item, source + (lane * depth + k) * item))


@cache
def forward_panels(element: str) -> Any:
    """The filling of panels for "float32" or "float64", compiled."""
    zero = types.float32 if element == "float32" else types.float64
    gates = types.Array(types.int64, 1, "C")
    return entry((zero, *[types.int64] * 3, gates, *[types.int64] * 5))(_forward_panels)
