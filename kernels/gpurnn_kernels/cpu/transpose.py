"""Rows of a matrix into the lanes of vectors: the part of packing that NumPy is slow at."""

from functools import cache
from typing import Any

from numba.core import types

from .compile import entry


def transpose(out, to, to_row, matrix, source, source_row, rows, columns):  # type: ignore[no-untyped-def]
    """out[to + k * to_row + row] = matrix[source + row * source_row + k], both seen as one run of elements."""
    for k in range(columns):
        for row in range(rows):
            out[to + k * to_row + row] = matrix[source + row * source_row + k]


@cache
def transposer(element: str) -> Any:
    """`transpose` for "float32" or "float64", compiled."""
    kind = types.float32 if element == "float32" else types.float64
    out, matrix = types.Array(kind, 1, "C"), types.Array(kind, 1, "C", readonly=True)
    return entry((out, types.int64, types.int64, matrix, *[types.int64] * 4))(transpose)
