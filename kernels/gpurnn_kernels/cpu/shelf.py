"""Memory to use again: what one call leaves and a later one with the same key takes, instead of fresh memory, which costs more
to touch for the first time than to fill."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from ..spec import Array
from .packing import aligned

T = TypeVar("T")


class Shelf(Generic[T]):
    """Things by key, the longest unused first to go. Without a lock, which a forked child might find held for ever: each step
    is one operation on a dict or a list, and what two threads may do at once costs a thing at worst."""

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        """limit: bytes that stay; size: the bytes of a thing."""
        self._limit = limit
        self._size = size
        self._free: dict[Any, list[T]] = {}

    def take(self, key: Any) -> T | None:
        try:
            return self._free[key].pop()
        except (KeyError, IndexError):
            return None

    def give(self, key: Any, thing: T) -> None:
        self._free[key] = [*self._free.pop(key, []), thing]  # as the last key
        kept = 0
        for other, things in reversed(list(self._free.items())):
            kept += sum(self._size(one) for one in things)
            if kept > self._limit:
                self._free.pop(other, None)


# of training calls: what the forward pass keeps and the gates' gradients, as large as x, y and more
ARRAYS: Shelf[Array] = Shelf(256 << 20, lambda array: array.nbytes)


def borrowed(count: int, dtype: np.dtype[Any]) -> Array:
    """As `aligned`, from the shelf where it has one; `returned` gives it back."""
    found = ARRAYS.take(count * dtype.itemsize)
    return aligned(count, dtype) if found is None else found.view(dtype)


def borrowed_zeros(count: int, dtype: np.dtype[Any]) -> Array:
    array = borrowed(count, dtype)
    array[:] = 0
    return array


def returned(*arrays: Array | None) -> None:
    """Nobody may use the arrays, of any shape but contiguous, any more."""
    for array in arrays:
        if array is not None:
            ARRAYS.give(array.nbytes, array.reshape(-1))
