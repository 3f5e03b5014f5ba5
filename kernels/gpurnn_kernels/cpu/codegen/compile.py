"""Compiles kernels: C functions called by address, and the few functions that Python calls."""

import inspect
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from numba import njit
from numba.core import types
from numba.core.caching import NullCache
from numba.core.ccallback import CFunc

from ...aside import aside
from .cache import KernelCache, log
from .descriptors import SHARE_POINTER, job_pointer, packing_pointer

_addresses: dict[tuple[Callable[..., Any], str], int] = {}
_FOREIGN: set[Callable[..., Any]] = set()  # kernels whose machine code is not saved on disk
_keep: list[Any] = []  # their machine code must outlive every call


def kernel_address(function: Callable[..., Any], element: str) -> int:
    """Gives the address of a kernel, compiled for an element type as a C function, or loaded from the cache.

    A parameter's name is its type: `job`, `packing` and `share` point to records, `zero` is an element, all others are int64.
    """
    address = _addresses.get((function, element))
    return aside(partial(_made, function, element)) if address is None else address


def _made(function: Callable[..., Any], element: str) -> int:
    """Makes the address on the one thread that compiles."""
    key = (function, element)
    if key not in _addresses:
        start = time.perf_counter()
        compiled = kernel_object(function, element)
        _keep.append(compiled)
        _addresses[key] = int(compiled.address)
        how = "loaded" if compiled.cache_hits else "compiled"
        log.debug("%s %s %s in %.2f s", how, function.__qualname__, element, time.perf_counter() - start)
    return _addresses[key]


def kernel_object(function: Callable[..., Any], element: str) -> Any:
    """Gives Numba's C callback for `kernel_address`."""
    zero = types.float32 if element == "float32" else types.float64
    kinds = {"job": job_pointer(element), "packing": packing_pointer(element), "share": SHARE_POINTER, "zero": zero}
    signature = tuple(kinds.get(name, types.int64) for name in inspect.signature(function).parameters), types.void
    compiled: Any = CFunc(function, signature, locals={}, options={"error_model": "numpy", "boundscheck": False})
    if function in _FOREIGN:
        compiled._cache = NullCache()
        compiled.compile()
        return compiled
    compiled._cache = KernelCache(function, compiled._sig)
    with compiled._cache.once():
        compiled.compile()
    return compiled


def not_kept(kernels: Iterable[Callable[..., Any]]) -> None:
    """Has no machine code of these kernels saved on disk: they are made of functions that the package's digest does not
    know."""
    _FOREIGN.update(kernels)


def entry(signature: str, function: Callable[..., Any]) -> Any:
    """A function that Python calls, without the GIL, compiled (or loaded) at once for its one signature."""
    dispatcher: Any = njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    dispatcher._cache = KernelCache(function, signature)
    with dispatcher._cache.once():
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher
