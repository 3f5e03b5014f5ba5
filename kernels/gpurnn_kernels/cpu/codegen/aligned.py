"""Memory on cache lines of its own, and the addresses of arrays that kernels read and write."""

from collections.abc import Mapping
from ctypes import addressof, c_char
from typing import Any

import numpy as np

from ...spec import Array

ALIGNMENT = 128  # bytes, two cache lines: processors fetch them in pairs

_byte_at: Any = c_char.from_buffer  # its stub knows of no arrays


def aligned(count: int, dtype: np.dtype[np.generic]) -> Array:
    """Gives `count` elements on cache lines of their own, not initialised."""
    buffer = np.empty(count * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count * dtype.itemsize].view(dtype)


def aligned_zeros(count: int, dtype: np.dtype[np.generic]) -> Array:
    array = aligned(count, dtype)
    array[:] = 0
    return array


def side_by_side(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Lays out buffers of `sizes` bytes in one piece of memory. Gives the byte at which each begins, and the bytes of all."""
    offsets, end = {}, 0
    for name, size in sizes.items():
        offsets[name] = end
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end


def address(array: Array | None) -> int:
    """Gives the address of the first element; 0 for no array."""
    if array is None:
        return 0
    try:
        return addressof(_byte_at(array))  # a quarter of what array.ctypes.data takes
    except (TypeError, ValueError):  # read-only, with gaps, or empty
        return int(array.__array_interface__["data"][0])
