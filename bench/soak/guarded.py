"""Arrays between pages that nobody may touch: whoever reads or writes beyond an array's pages ends the process, and what is
written beside an array within them shows afterwards. Linux and macOS."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
POISON = 0xFF  # in each byte: NaN as a float, -1 as an integer


def _pages(size: int) -> Array:
    """Whole pages of at least `size` bytes, all POISON, between two without access; they go with the last view of them."""
    inner = -(-max(1, size) // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = np.frombuffer(mmap.mmap(-1, inner + 2 * mmap.PAGESIZE), np.uint8)
    for place in (0, mmap.PAGESIZE + inner):
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + place), ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError("mprotect: a page cannot be closed")
    pages = whole[mmap.PAGESIZE : mmap.PAGESIZE + inner]
    pages.fill(POISON)
    return pages


class Guards:
    """Makes guarded arrays, in random layouts, and sees afterwards that nobody wrote where nobody may."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._watched: list[tuple[Array, bytes, slice]] = []  # pages, what they held, the bytes that may change

    def given(self, array: Array) -> Array:
        """A copy that nobody may change: of any order of axes, strides and alignment; axes of stride 0 stay so."""
        rng, item = self._rng, array.itemsize
        order = rng.permutation(array.ndim) if rng.random() < 0.3 else np.arange(array.ndim)
        steps = rng.choice([1, 1, 1, 2, -1], array.ndim) if rng.random() < 0.4 else np.ones(array.ndim, int)
        strides, stride = [0] * array.ndim, item
        for axis in reversed(order.tolist()):
            if array.strides[axis] or array.shape[axis] == 1:
                strides[axis] = stride * int(steps[axis])
                stride *= abs(int(steps[axis])) * max(1, array.shape[axis])
        ends = [(n - 1) * step for n, step in zip(array.shape, strides, strict=True)] if array.size else [-item]
        low = sum(min(0, end) for end in ends) if array.size else 0
        off = int(rng.integers(1, item)) if item > 1 and rng.random() < 0.2 else 0
        pages, start = self._room(sum(max(0, end) for end in ends) + item - low, off)
        copy: Array = np.ndarray(array.shape, array.dtype, pages.data, start - low, strides)
        copy[...] = array
        self._watched.append((pages, pages.tobytes(), slice(0)))
        return copy

    def out(self, shape: Sequence[int], dtype: Any, strides: Sequence[int] | None = None) -> Array:
        """An array without gaps, to write to."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        pages, start = self._room(size, 0)
        self._watched.append((pages, pages.tobytes(), slice(start, start + size)))
        return np.ndarray(shape, dtype, pages.data, start, strides)

    def _room(self, size: int, off: int) -> tuple[Array, int]:
        """-> pages, and where in them `size` bytes lie that touch those behind or before, but for `off` bytes."""
        pages = _pages(size + off)
        return pages, len(pages) - size - off if self._rng.random() < 0.7 else off

    def difference(self) -> str | None:
        """Tells what was written beside arrays to write to, or into the others."""
        for pages, before, changes in self._watched:
            now, then = pages.copy(), np.frombuffer(before, np.uint8)
            now[changes] = then[changes]
            if (places := np.flatnonzero(now != then)).size:
                return f"{places.size} bytes written where nobody may, from {places[0]} on; array at {changes}"
        return None

    @contextmanager
    def allocations(self) -> Iterator[None]:
        """Inside, np.empty and np.array give guarded arrays: those that the library makes. For one thread."""
        empty, array = np.empty, np.array

        def guarded(make: Callable[..., Array]) -> Callable[..., Array]:
            def made(*arguments: Any, **options: Any) -> Array:
                found = make(*arguments, **options)
                moved = self.out(found.shape, found.dtype, found.strides)
                if make is array:
                    moved[...] = found
                return moved

            return made

        try:
            vars(np).update(empty=guarded(empty), array=guarded(array))
            yield
        finally:
            vars(np).update(empty=empty, array=array)
