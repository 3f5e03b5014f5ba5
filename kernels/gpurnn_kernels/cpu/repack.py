"""The loops of packing that NumPy is slow at: rows of a matrix into the lanes of vectors, and cut into panels."""

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from .compile import entry
from .emission import pointwise
from .forward import V1
from .pointwise import copy_element, copy_vector
from .vector import INT32, INT64, Vector, Vectors


def _scaled(v: Vectors, a: Vector, factor: Vector) -> Vector:
    """a * factor, but finite where a is."""
    times = a * factor
    finite = v.clamp(times, v.constant(float(np.finfo(f"float{v.bits}").max)))
    infinite = v.builder.fcmp_ordered("==", v.absolute(a).value, v.constant(float("inf")).value)
    return Vector(v, v.builder.select(infinite, times.value, finite.value))


@pointwise
def transpose_square(
    v: Vectors, to: ir.Value, to_row: ir.Value, source: ir.Value, source_row: ir.Value, factor: ir.Value
) -> None:
    """Rows of one vector each, as many as it has lanes, times a factor, into columns. Two rows half the square apart are
    merged lane by lane; after log2(lanes) rounds every lane is in place."""
    b, half = v.builder, v.lanes // 2
    rows = [v.load(b.add(source, b.mul(source_row, INT64(row)))).value for row in range(v.lanes)]
    merged = [
        ir.Constant(ir.VectorType(INT32, v.lanes), [start + lane // 2 + v.lanes * (lane % 2) for lane in range(v.lanes)])
        for start in (0, half)
    ]
    for _ in range(v.lanes.bit_length() - 1):
        rows = [b.shuffle_vector(rows[i], rows[i + half], order) for i in range(half) for order in merged]
    times = v.broadcast(factor)
    for column, value in enumerate(rows):
        v.store(b.add(to, b.mul(to_row, INT64(column))), _scaled(v, Vector(v, value), times))


@pointwise
def scale_element(v: Vectors, to: ir.Value, source: ir.Value, factor: ir.Value) -> None:
    """One element times a factor."""
    kind = v.element.as_pointer()
    scaled = _scaled(v, v.broadcast(source), v.broadcast(factor)).value
    v.builder.store(v.builder.extract_element(scaled, INT32(0)), v.builder.inttoptr(to, kind))


def _forward_panels(zero, item, out, matrix, gates, factors, hidden_size, units, lanes, width, depth):  # type: ignore[no-untyped-def]
    """Of the first `units` units, out[panel][k][vector][lane] = factors[gate] * matrix[gate * H + unit, k], vectors by block
    of units, then by gate. zero: of the element type, `item` bytes each; out, matrix, factors: addresses."""
    vectors = -(-units // lanes) * len(gates)
    for vector in range(vectors):
        block, index = vector // len(gates), vector % len(gates)
        first = vector // width * width
        row = min(width, vectors - first) * lanes
        count = min(lanes, units - block * lanes)
        squares = depth // lanes * lanes if count == lanes and count * item == V1 else 0
        to = out + (first * depth + vector - first) * lanes * item
        source = matrix + (gates[index] * hidden_size + block * lanes) * depth * item
        factor = factors + gates[index] * item
        for k in range(0, squares, lanes):
            transpose_square(zero, (to + k * row * item, row * item, source + k * item, depth * item, factor))
        for k in range(squares, depth):
            for lane in range(count):
                scale_element(zero, (to + (k * row + lane) * item, source + (lane * depth + k) * item, factor))


@cache
def forward_panels(dtype: np.dtype[Any]) -> Any:
    """The filling of panels for float32 or float64, compiled."""
    zero = types.float32 if dtype == np.float32 else types.float64
    gates = types.Array(types.int64, 1, "C")
    return entry((zero, *[types.int64] * 3, gates, *[types.int64] * 6))(_forward_panels)


def _backward_panels(zero, item, out, matrix, gates, hidden_size, lanes, width, columns):  # type: ignore[no-untyped-def]
    """out[panel][block of units, gate, lane][vector][lane] = matrix[gate * H + unit], vectors and lanes of it over its
    columns, `width` vectors to a panel. Nothing is written for units past H and columns past the last one."""
    vectors = -(-columns // lanes)
    blocks = -(-hidden_size // lanes)
    depth = blocks * len(gates) * lanes
    for block in range(blocks):
        for index in range(len(gates)):
            # panel by panel: rows of many panels at once would fall on the same lines of the cache
            for first in range(0, vectors, width):
                row = min(width, vectors - first)
                for lane in range(min(lanes, hidden_size - block * lanes)):
                    source = matrix + (gates[index] * hidden_size + block * lanes + lane) * columns * item
                    k = (block * len(gates) + index) * lanes + lane
                    to = out + (first * depth + k * row) * lanes * item
                    for vector in range(first, first + row):
                        at = vector * lanes
                        if lanes * item == V1 and at + lanes <= columns:
                            copy_vector(zero, (to + (at - first * lanes) * item, source + at * item))
                        else:
                            for column in range(at, min(at + lanes, columns)):
                                copy_element(zero, (to + (column - first * lanes) * item, source + column * item))


@cache
def backward_panels(dtype: np.dtype[Any]) -> Any:
    """The same for panels of the backward products."""
    zero = types.float32 if dtype == np.float32 else types.float64
    gates = types.Array(types.int64, 1, "C")
    return entry((zero, *[types.int64] * 3, gates, *[types.int64] * 4))(_backward_panels)
