"""Weights in the order in which the tiles stream them.

A matrix (gates * H, K) becomes vectors of units, block of units by block, all gates of a block side by side; `width` of them
to a panel: [panel][k][vector][lane], the last panel as narrow as it is. Lanes past H are zeros.

The units that are left over after whole vectors (4 of 100) would waste most of their lanes. Where that takes fewer vectors,
their gates share vectors instead: [k][gate][unit], without padding in between. The kernels spread them afterwards.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from ..spec import Array
from .repack import backward_panels, forward_panels
from .shelf import FRESH, Arrays

NARROW = (1, 2)  # vectors that gates may share: each width is a tile of its own to compile


@cache
def _places(gates: tuple[int, ...]) -> Array:
    return np.array(gates, np.int64)


def pack_gates(
    matrix: Array,
    gates: Sequence[int],
    hidden_size: int,
    lanes: int,
    width: int,
    factors: Array | None = None,
    arrays: Arrays = FRESH,
) -> Array:
    """W (all gates * H, K) for the forward product: columns are the units of the chosen gates. factors: of all gates' weights,
    1 each when there are none."""
    vectors = -(-hidden_size // lanes)
    out = arrays.borrowed(vectors * len(gates) * lanes * matrix.shape[1], matrix.dtype)
    if hidden_size % lanes:
        out[:] = 0
    _fill_panels(out, matrix, gates, hidden_size, hidden_size, lanes, width, factors)
    return out


def _fill_panels(
    out: Array,
    matrix: Array,
    gates: Sequence[int],
    hidden_size: int,
    units: int,
    lanes: int,
    width: int,
    factors: Array | None,
) -> None:
    """The panels of the first `units` units."""
    fill = forward_panels(matrix.dtype)
    source = np.ascontiguousarray(matrix)
    times = np.ones(max(gates) + 1, matrix.dtype) if factors is None else factors
    sizes = (times.ctypes.data, hidden_size, units, lanes, width, matrix.shape[1])
    fill(matrix.dtype.type(0), matrix.itemsize, out.ctypes.data, source.ctypes.data, _places(tuple(gates)), *sizes)


def narrow_vectors(gates: int, hidden_size: int, lanes: int) -> int:
    """Vectors that the gates of the left-over units share; 0 where each gate has vectors of its own."""
    needed = -(-gates * (hidden_size % lanes) // lanes)
    return needed if needed in NARROW and needed < gates else 0


def pack_narrow(
    matrix: Array,
    gates: Sequence[int],
    hidden_size: int,
    lanes: int,
    width: int,
    vectors: int,
    factors: Array | None = None,
    arrays: Arrays = FRESH,
) -> Array:
    """As `pack_gates`, but the left-over units' gates share vectors, in the matrix's own order."""
    depth = matrix.shape[1]
    whole = hidden_size // lanes * lanes
    at = whole * len(gates) * depth
    out = arrays.borrowed_zeros(at + vectors * lanes * depth, matrix.dtype)
    _fill_panels(out, matrix, gates, hidden_size, whole, lanes, width, factors)
    by_gate = matrix.reshape(-1, hidden_size, depth)[:, whole:]
    if factors is not None:
        most = np.finfo(matrix.dtype).max
        with np.errstate(over="ignore"):
            times = by_gate * factors[:, None, None]
        by_gate = np.where(np.isinf(by_gate), times, np.clip(times, -most, most))
    narrow = by_gate.reshape(-1, depth)
    out[at:].reshape(depth, -1)[:, : len(narrow)] = narrow.T
    return out


def pack_bias(
    bias: Array | None,
    gates: Sequence[int],
    hidden_size: int,
    lanes: int,
    dtype: np.dtype[np.generic],
    factors: Array | None = None,
    arrays: Arrays = FRESH,
) -> Array:
    """b (all gates * H,) in the order of `pack_gates`, zeros when there is none."""
    if bias is None:
        return arrays.borrowed_zeros(len(gates) * -(-hidden_size // lanes) * lanes, dtype)
    return pack_gates(bias[:, None], gates, hidden_size, lanes, 1, factors, arrays)


def pack_transposed(
    matrix: Array, gates: Sequence[int], hidden_size: int, lanes: int, width: int, arrays: Arrays = FRESH
) -> Array:
    """W (all gates * H, K) for the backward product: columns are W's K columns, depth its rows as [block][gate][lane]."""
    columns = matrix.shape[1]
    depth = -(-hidden_size // lanes) * len(gates) * lanes
    out = arrays.borrowed(depth * -(-columns // lanes) * lanes, matrix.dtype)
    if hidden_size % lanes or columns % lanes:
        out[:] = 0
    fill = backward_panels(matrix.dtype)
    source = np.ascontiguousarray(matrix)
    sizes = (hidden_size, lanes, width, columns)
    fill(matrix.dtype.type(0), matrix.itemsize, out.ctypes.data, source.ctypes.data, _places(tuple(gates)), *sizes)
    return out
