"""The loops of `packing.py`, compiled: every array is one run of elements."""

from functools import cache
from typing import Any

from numba.core import types

from .compile import entry


def forward_panels(out, matrix, gates, hidden_size, units, lanes, blocks, depth):  # type: ignore[no-untyped-def]
    """Of the first `units` units, out[panel][k][block of units][gate][lane] = matrix[gate * H + unit, k]."""
    vectors = -(-units // lanes)
    for block in range(vectors):
        first = block // blocks * blocks
        row = min(blocks, vectors - first) * len(gates) * lanes
        count = min(lanes, units - block * lanes)
        for index in range(len(gates)):
            to = first * len(gates) * lanes * depth + ((block - first) * len(gates) + index) * lanes
            source = (gates[index] * hidden_size + block * lanes) * depth
            for k in range(depth):
                for lane in range(count):
                    out[to + k * row + lane] = matrix[source + lane * depth + k]


def backward_panels(out, matrix, gates, hidden_size, columns, lanes, blocks):  # type: ignore[no-untyped-def]
    """out[panel][block of units][gate][lane][column] = matrix[gate * H + unit, column]."""
    vectors = -(-hidden_size // lanes)
    depth = vectors * len(gates) * lanes
    for start in range(0, columns, blocks * lanes):
        count = min(blocks * lanes, columns - start)
        width = -(-count // lanes) * lanes
        for index in range(len(gates)):
            for unit in range(hidden_size):
                block = unit // lanes
                row = (block * len(gates) + index) * lanes + unit - block * lanes
                to = start * depth + row * width
                source = (gates[index] * hidden_size + unit) * columns + start
                for column in range(count):
                    out[to + column] = matrix[source + column]


@cache
def compiled(function: Any, element: str) -> Any:
    """One of the above for "float32" or "float64"."""
    kind = types.float32 if element == "float32" else types.float64
    out, matrix = types.Array(kind, 1, "C"), types.Array(kind, 1, "C", readonly=True)
    sizes = function.__code__.co_argcount - 3
    return entry((out, matrix, types.Array(types.int64, 1, "C"), *[types.int64] * sizes))(function)
