"""A property that is computed at its first use and kept in the object, for processes that fork."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):
    """A cached property without a lock, like `functools.cached_property` from Python 3.12 on. A child that is forked while
    another thread computes would find a lock held for ever. Where two threads come first, both compute."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "cached_property[T]": ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object, owner: type) -> "cached_property[T] | T":
        if instance is None:
            return self
        # setdefault: later uses find it in the object, and never come here
        found: T = vars(instance).setdefault(self._name, self._compute(instance))
        return found
