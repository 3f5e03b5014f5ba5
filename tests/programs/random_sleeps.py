"""A hook for the team's threads that has them sleep or give way at random."""

import ctypes
from typing import Any

import numpy as np
from numba import cfunc

from gpurnn_kernels.cpu.codegen.intrinsics import call0, call2, load_word, store_word

_libc: Any = ctypes.CDLL(None)
_state = np.array([88172645463325252], np.int64)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_state))  # threads outlive the interpreter
_AT = _state.ctypes.data
_USLEEP, _YIELD = (ctypes.cast(getattr(_libc, name), ctypes.c_void_p).value or 0 for name in ("usleep", "sched_yield"))


@cfunc("void(int64)")
def _sleep_at_random(place):  # type: ignore[no-untyped-def]
    state = load_word(_AT) + place
    state ^= state << 13
    state ^= (state >> 7) & 0x1FFFFFFFFFFFFFF
    state ^= state << 17
    store_word(_AT, state)
    draw = (state >> 20) & 63
    if draw == 0:
        call2(_USLEEP, (state >> 30) & 511, 0)
    elif draw < 8:
        call0(_YIELD)


def hook() -> int:
    """Its address."""
    return int(_sleep_at_random.address)
