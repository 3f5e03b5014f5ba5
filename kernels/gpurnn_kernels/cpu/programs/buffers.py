"""Pools of buffers that one call gives back and a later one takes again. Fresh memory costs more to touch for the first time
than to fill."""

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ...spec import Array
from ..codegen.aligned import aligned
from .blocking import ARRAY_BYTES, LEAST_KEPT, LEAST_LEASED

T = TypeVar("T")


class Bound:
    """A limit to the bytes that several pools hold together: the buffers that were given back first go first, whichever pool
    they lie in. It has no lock, which a forked child might find held for ever: two threads at once may lose a buffer at worst,
    or put the count of bytes out until it is next taken anew."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.free: dict[tuple[int, Any], list[tuple[Any, int]]] = {}  # by pool and key; the last given stands last
        self.bytes = 0

    def thin_out(self) -> None:
        """Drops what was given back first until the limit is kept."""
        held = 0
        for place, buffers in reversed(list(self.free.items())):
            size = sum(size for _, size in buffers)
            if held + size > self.limit:
                self.free.pop(place, None)
            else:
                held += size
        self.bytes = held


_numbers = itertools.count()  # of pools


class BufferPool(Generic[T]):
    """Buffers by key, under a bound that other pools may share. They go when the pool does."""

    def __init__(self, bound: Bound, size: Callable[[T], int]) -> None:
        """size: gives the bytes of a buffer."""
        self._bound, self._size, self._number = bound, size, next(_numbers)

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if not at_exit():  # a default, since a module's names are gone by then
            free = self._bound.free
            for place in [place for place in list(free) if place[0] == self._number]:
                self._bound.bytes -= sum(size for _, size in free.pop(place, ()))

    def take(self, key: Any) -> T | None:
        bound = self._bound
        try:
            buffer, size = bound.free[self._number, key].pop()
        except (KeyError, IndexError):
            return None
        bound.bytes -= size
        found: T = buffer
        return found

    def give(self, key: Any, buffer: T) -> None:
        bound, place, size = self._bound, (self._number, key), self._size(buffer)
        bound.free[place] = [*bound.free.pop(place, ()), (buffer, size)]  # as the last one
        bound.bytes += size
        if bound.bytes > bound.limit:
            bound.thin_out()


class Arrays(BufferPool[Array]):
    """A pool of arrays by their bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(Bound(limit), lambda array: array.nbytes)

    def take_array(self, count: int, dtype: np.dtype[Any]) -> Array:
        """Gives an array like `aligned`, from the pool where it holds one; `give_arrays` returns it."""
        if count * dtype.itemsize < LEAST_KEPT:
            return aligned(count, dtype)
        found = self.take(count * dtype.itemsize)
        return aligned(count, dtype) if found is None else found.view(dtype)

    def give_arrays(self, *arrays: Array | None) -> None:
        """Takes contiguous arrays of any shape back. Nobody may use them any more."""
        for array in arrays:
            if array is not None and array.nbytes >= LEAST_KEPT:
                self.give(array.nbytes, array.reshape(-1))

    def lease(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Gives an array like np.empty, for callers of the library: a large one's memory comes from the pool, and returns once
        nobody has the array or a view of it any more."""
        count = math.prod(shape)
        if count * dtype.itemsize < LEAST_LEASED:
            return np.empty(shape, dtype)
        return np.asarray(_Lease(self, self.take_array(count, dtype).reshape(shape)))


class _Lease:
    """The memory under a leased array. It returns to the pool when this object goes."""

    def __init__(self, arrays: Arrays, memory: Array) -> None:
        self._arrays, self._memory = arrays, memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        memory = getattr(self, "_memory", None)  # a constructor that failed left none
        if memory is not None and not ends():
            self._arrays.give_arrays(memory)


ARRAYS = Arrays(ARRAY_BYTES)
