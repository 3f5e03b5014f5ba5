"""Memory to use again: what one call leaves and a later one with the same key takes, instead of fresh memory, which costs more
to touch for the first time than to fill."""

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ...spec import Array
from ..codegen.aligned import aligned
from .blocking import ARRAY_BYTES, LEAST_KEPT, LEAST_LENT

T = TypeVar("T")


class Bound:
    """How many bytes the things on several shelves may take together: of more, the longest unused go first, whichever shelf
    they lie on. It has no lock, which a forked child might find held for ever: what two threads may do at once costs a thing
    at worst, or puts the count of bytes out until it is next taken anew."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.free: dict[tuple[int, Any], list[tuple[Any, int]]] = {}  # by shelf and key, what was given last comes last
        self.bytes = 0

    def thin_out(self) -> None:
        kept = 0
        for place, things in reversed(list(self.free.items())):
            size = sum(size for _, size in things)
            if kept + size > self.limit:
                self.free.pop(place, None)
            else:
                kept += size
        self.bytes = kept


_numbers = itertools.count()  # of shelves


class BufferPool(Generic[T]):
    """Things by key, under a bound that other shelves may share. They go when the shelf does."""

    def __init__(self, bound: Bound, size: Callable[[T], int]) -> None:
        """size: the bytes of a thing."""
        self._bound, self._size, self._number = bound, size, next(_numbers)

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if not at_exit():  # a default, since a module's names are gone by then
            free = self._bound.free
            for place in [place for place in list(free) if place[0] == self._number]:
                self._bound.bytes -= sum(size for _, size in free.pop(place, ()))

    def take(self, key: Any) -> T | None:
        bound = self._bound
        try:
            thing, size = bound.free[self._number, key].pop()
        except (KeyError, IndexError):
            return None
        bound.bytes -= size
        found: T = thing
        return found

    def give(self, key: Any, thing: T) -> None:
        bound, place, size = self._bound, (self._number, key), self._size(thing)
        bound.free[place] = [*bound.free.pop(place, ()), (thing, size)]  # as the last one
        bound.bytes += size
        if bound.bytes > bound.limit:
            bound.thin_out()


class Arrays(BufferPool[Array]):
    """Arrays by their bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(Bound(limit), lambda array: array.nbytes)

    def leased(self, count: int, dtype: np.dtype[Any]) -> Array:
        """As `aligned`, from the shelf where it has one; `give_back` gives it back."""
        if count * dtype.itemsize < LEAST_KEPT:
            return aligned(count, dtype)
        found = self.take(count * dtype.itemsize)
        return aligned(count, dtype) if found is None else found.view(dtype)

    def give_back(self, *arrays: Array | None) -> None:
        """Nobody may use the arrays, of any shape but contiguous, any more."""
        for array in arrays:
            if array is not None and array.nbytes >= LEAST_KEPT:
                self.give(array.nbytes, array.reshape(-1))

    def lend(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """As np.empty, for whoever calls the library: a large array's memory comes from the shelf, and goes back once nobody
        has the array or a view of it any more."""
        count = math.prod(shape)
        if count * dtype.itemsize < LEAST_LENT:
            return np.empty(shape, dtype)
        return np.asarray(_Loan(self, self.leased(count, dtype).reshape(shape)))


class _Loan:
    """What an array that was lent stands on, and what goes when it does."""

    def __init__(self, arrays: Arrays, memory: Array) -> None:
        self._arrays, self._memory = arrays, memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        memory = getattr(self, "_memory", None)  # a constructor that failed left none
        if memory is not None and not ends():
            self._arrays.give_back(memory)


# of training calls: what the forward pass keeps, the gates' gradients and the results, as large as x, y and more
ARRAYS = Arrays(ARRAY_BYTES)
