"""Decorators for kernels' helper functions, which are compiled into their callers, never on their own."""

from collections.abc import Callable
from typing import Any

from numba import extending, njit
from numba.core import types

_njit: Any = njit  # its stub lacks these options
intrinsic: Any = extending.intrinsic  # and this one's counts the typing context as an argument
_INSIDE = {"error_model": "numpy", "boundscheck": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def inlined(function: Callable[..., Any]) -> Any:
    """Makes a function that kernels call. LLVM inlines it, which compiles several times faster than Numba's
    inline="always"."""
    return _for_all_integers(_njit(**_INSIDE, forceinline=True)(function))


def called(function: Callable[..., Any]) -> Any:
    """Makes a function that kernels call and that is too large to inline."""
    return _for_all_integers(_njit(**_INSIDE)(function))


def _for_all_integers(dispatcher: Any) -> Any:
    """Has a function compiled once for all integers. Numba would compile it again for each pattern of arguments that are
    constants, with all that it calls."""
    template = dispatcher.get_call_template

    def for_types(args: Any, kws: Any) -> Any:
        return template(tuple(map(types.unliteral, args)), {name: types.unliteral(kind) for name, kind in kws.items()})

    dispatcher.get_call_template = for_types
    return dispatcher


def named(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a kernel that a function has made a name of its own."""
    kernel.__name__ = kernel.__qualname__ = name
    return kernel
