"""Memory to use again: what one call leaves and a later one with the same key takes, instead of fresh memory, which costs more
to touch for the first time than to fill."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..spec import Array

_LEAST = 1 << 12  # bytes, a page: less is not worth the keeping
_LEAST_LENT = 3 << 16  # bytes: an allocator has less at hand, and asks the system for more, page by page, each time
ALIGNMENT = 128  # bytes, two cache lines: processors fetch them in pairs
T = TypeVar("T")


def aligned(count: int, dtype: np.dtype[np.generic]) -> Array:
    """`count` elements on cache lines of their own, not initialised."""
    buffer = np.empty(count * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count * dtype.itemsize].view(dtype)


def aligned_zeros(count: int, dtype: np.dtype[np.generic]) -> Array:
    array = aligned(count, dtype)
    array[:] = 0
    return array


def side_by_side(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """-> where things of so many bytes begin in one piece of memory, on cache lines of their own, and the bytes of it."""
    places, end = {}, 0
    for name, size in sizes.items():
        places[name] = end
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return places, end


class Shelf(Generic[T]):
    """Things by key, the longest unused first to go. Without a lock, which a forked child might find held for ever: what two
    threads may do at once costs a thing at worst, or puts the count of bytes out until it is next taken anew."""

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        """limit: bytes that stay; size: the bytes of a thing."""
        self._limit = limit
        self._size = size
        self._free: dict[Any, list[tuple[T, int]]] = {}
        self._bytes = 0

    def take(self, key: Any) -> T | None:
        try:
            thing, size = self._free[key].pop()
        except (KeyError, IndexError):
            return None
        self._bytes -= size
        return thing

    def give(self, key: Any, thing: T) -> None:
        size = self._size(thing)
        self._free[key] = [*self._free.pop(key, ()), (thing, size)]  # as the last key
        self._bytes += size
        if self._bytes > self._limit:
            self._thin_out()

    def _thin_out(self) -> None:
        kept = 0
        for other, things in reversed(list(self._free.items())):
            size = sum(size for _, size in things)
            if kept + size > self._limit:
                self._free.pop(other, None)
            else:
                kept += size
        self._bytes = kept


class Arrays(Shelf[Array]):
    """Arrays by their bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, lambda array: array.nbytes)

    def borrowed(self, count: int, dtype: np.dtype[Any]) -> Array:
        """As `aligned`, from the shelf where it has one; `returned` gives it back."""
        if count * dtype.itemsize < _LEAST:
            return aligned(count, dtype)
        found = self.take(count * dtype.itemsize)
        return aligned(count, dtype) if found is None else found.view(dtype)

    def returned(self, *arrays: Array | None) -> None:
        """Nobody may use the arrays, of any shape but contiguous, any more."""
        for array in arrays:
            if array is not None and array.nbytes >= _LEAST:
                self.give(array.nbytes, array.reshape(-1))

    def lent(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """As np.empty, for whoever calls the library: a large array's memory comes from the shelf, and goes back once nobody
        has the array or a view of it any more."""
        count = math.prod(shape)
        if count * dtype.itemsize < _LEAST_LENT:
            return np.empty(shape, dtype)
        return np.asarray(_Loan(self, self.borrowed(count, dtype).reshape(shape)))


class _Loan:
    """What an array that was lent stands on, and what goes when it does."""

    def __init__(self, arrays: Arrays, memory: Array) -> None:
        self._arrays, self._memory = arrays, memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        memory = getattr(self, "_memory", None)  # a constructor that failed left none
        if memory is not None and not ends():
            self._arrays.returned(memory)


# of training calls: what the forward pass keeps, the gates' gradients and the results, as large as x, y and more
ARRAYS = Arrays(256 << 20)
