"""Weights in the order in which the tiles stream them.

A matrix (gates * H, K) becomes panels [panel][k][block of units][gate][lane]: `blocks` vectors of units with all their gates
side by side, for one k after the other, and the last panel as narrow as it is. Lanes past H are zeros.

The units that are left over after whole vectors (4 of 100) would waste most of their lanes. Where that takes fewer vectors,
their gates share vectors instead: [k][gate][unit], without padding in between. The kernels spread them afterwards.
"""

from collections.abc import Sequence

import numpy as np

from ..spec import Array

ALIGNMENT = 64  # bytes, a cache line
NARROW = (1, 2)  # vectors that gates may share: each width is a tile of its own to compile


def aligned(count: int, dtype: np.dtype[np.generic]) -> Array:
    """`count` elements on a cache line of their own, not initialised."""
    buffer = np.empty(count * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count * dtype.itemsize].view(dtype)


def aligned_zeros(count: int, dtype: np.dtype[np.generic]) -> Array:
    array = aligned(count, dtype)
    array[:] = 0
    return array


def units_first(matrix: Array, gates: Sequence[int], hidden_size: int, lanes: int) -> Array:
    """(all gates * H, K) -> [block][gate][lane][k] of the chosen gates: padded units, gates inside their block."""
    depth = matrix.shape[1]
    blocks = -(-hidden_size // lanes)
    padded = np.zeros((len(gates), blocks * lanes, depth), matrix.dtype)
    padded[:, :hidden_size] = matrix.reshape(-1, hidden_size, depth)[list(gates)]
    return padded.reshape(len(gates), blocks, lanes, depth).transpose(1, 0, 2, 3)


def pack_panels(columns: Array, blocks: int) -> Array:
    """[block][gate][lane][k] -> panels of `blocks` blocks."""
    count, gates, lanes, depth = columns.shape
    out = aligned(columns.size, columns.dtype)
    whole = count // blocks * blocks
    at = whole * gates * lanes * depth
    if whole:
        panels = columns[:whole].reshape(whole // blocks, blocks, gates, lanes, depth)
        out[:at].reshape(whole // blocks, depth, blocks, gates, lanes)[...] = panels.transpose(0, 4, 1, 2, 3)
    if whole < count:
        out[at:].reshape(depth, count - whole, gates, lanes)[...] = columns[whole:].transpose(3, 0, 1, 2)
    return out


def pack_gates(matrix: Array, gates: Sequence[int], hidden_size: int, lanes: int, blocks: int = 1) -> Array:
    """W (all gates * H, K) for the forward product: columns are units, all chosen gates of a unit in one panel."""
    return pack_panels(units_first(matrix, gates, hidden_size, lanes), blocks)


def narrow_vectors(gates: int, hidden_size: int, lanes: int) -> int:
    """Vectors that the gates of the left-over units share; 0 where each gate has vectors of its own."""
    needed = -(-gates * (hidden_size % lanes) // lanes)
    return needed if needed in NARROW and needed < gates else 0


def pack_narrow(matrix: Array, gates: Sequence[int], hidden_size: int, lanes: int, vectors: int) -> Array:
    """As `pack_gates`, but the left-over units' gates share vectors, in the matrix's own order."""
    depth = matrix.shape[1]
    whole = hidden_size // lanes * lanes
    parts = matrix.reshape(-1, hidden_size, depth)
    at = whole * len(gates) * depth
    out = aligned_zeros(at + vectors * lanes * depth, matrix.dtype)
    if whole:
        out[:at] = pack_gates(parts[:, :whole].reshape(-1, depth), gates, whole, lanes)
    narrow = parts[:, whole:].reshape(-1, depth)
    out[at:].reshape(depth, -1)[:, : len(narrow)] = narrow.T
    return out


def pack_bias(bias: Array | None, gates: Sequence[int], hidden_size: int, lanes: int, dtype: np.dtype[np.generic]) -> Array:
    """b (all gates * H,) in the order of `pack_gates`, zeros when there is none."""
    if bias is None:
        return aligned_zeros(len(gates) * -(-hidden_size // lanes) * lanes, dtype)
    return pack_gates(bias[:, None], gates, hidden_size, lanes)


def pack_transposed(matrix: Array, gates: Sequence[int], hidden_size: int, lanes: int, blocks: int) -> Array:
    """W (all gates * H, K) for the backward product: columns are W's K columns, depth its rows as [block][gate][lane]."""
    columns = matrix.shape[1]
    rows = units_first(matrix, gates, hidden_size, lanes).reshape(-1, columns)
    depth = len(rows)
    count = -(-columns // lanes)
    whole = columns // (blocks * lanes)
    width = blocks * lanes
    out = aligned(depth * count * lanes, matrix.dtype)
    at = whole * depth * width
    out[:at].reshape(whole, depth, width)[...] = rows[:, : whole * width].reshape(depth, whole, width).transpose(1, 0, 2)
    if at < out.size:
        last = out[at:].reshape(depth, -1)
        last[:, : columns - whole * width] = rows[:, whole * width :]
        last[:, columns - whole * width :] = 0
    return out
