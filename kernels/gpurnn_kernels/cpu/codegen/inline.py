"""Decorators for kernels' helper functions, which are compiled into their callers, never on their own."""

from collections.abc import Callable
from typing import Any

from numba import extending, njit

_njit: Any = njit  # its stub lacks these options
intrinsic: Any = extending.intrinsic  # and this one's counts the typing context as an argument
_INSIDE = {"error_model": "numpy", "boundscheck": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def inlined(function: Callable[..., Any]) -> Any:
    """Makes a function that kernels call. LLVM inlines it, which compiles several times faster than Numba's
    inline="always"."""
    return _njit(**_INSIDE, forceinline=True)(function)


def called(function: Callable[..., Any]) -> Any:
    """Makes a function that kernels call and that is too large to inline."""
    return _njit(**_INSIDE)(function)


def named(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a kernel that a function has made a name of its own."""
    kernel.__name__ = kernel.__qualname__ = name
    return kernel
