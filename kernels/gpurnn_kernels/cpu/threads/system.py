"""C functions of the system and of Python that machine code calls by address, and threads that Python does not know.

Threads start in C: gevent and eventlet replace Python's threads, and the interpreter neither lists nor joins those that C
starts. They park in locks of Python's C interface, which every system has and which hold no descriptor.
"""

import ctypes
import os
import time
from typing import Any

_WINDOWS = os.name == "nt"
_libc: Any = ctypes.CDLL("kernel32" if _WINDOWS else None)


def _address(library: Any, name: str) -> int:
    """Gives the address of a C function; 0 where the library lacks it."""
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


def address_in_python(name: str) -> int:
    """Gives the address of a function of Python's C interface."""
    return _address(ctypes.pythonapi, name)


NEW_LOCK, ACQUIRE, RELEASE = (address_in_python(f"PyThread_{name}_lock") for name in ("allocate", "acquire", "release"))
SELF = _address(_libc, "GetCurrentThreadId" if _WINDOWS else "pthread_self")  # what threading calls a thread's ident
YIELD = _address(_libc, "SwitchToThread" if _WINDOWS else "sched_yield")
CLOCK = _address(_libc, "QueryPerformanceCounter" if _WINDOWS else "clock_gettime")
SLEEP = _address(_libc, "usleep")
THREAD_ID = _address(_libc, "gettid")  # of Linux
BLOCK_SIGNALS = _address(_libc, "pthread_sigmask")


def clock_argument(out: int) -> tuple[int, int]:
    """Gives the first argument of CLOCK, which writes two words at `out`, and the nanoseconds that the first word counts."""
    if not _WINDOWS:
        return time.CLOCK_MONOTONIC, 1_000_000_000
    frequency = ctypes.c_int64()
    _libc.QueryPerformanceFrequency(ctypes.byref(frequency))
    return out, 1_000_000_000 // frequency.value


def start_thread(function: int, argument: int) -> int:
    """Starts a detached thread in the C function `void f(int64)`. Gives 0, or the system's error number."""
    if _WINDOWS:
        create = _libc.CreateThread
        create.restype = ctypes.c_void_p
        handle = create(None, ctypes.c_size_t(0), ctypes.c_void_p(function), ctypes.c_void_p(argument), 0, None)
        return _libc.CloseHandle(ctypes.c_void_p(handle)) * 0 if handle else int(_libc.GetLastError())
    thread = ctypes.c_void_p()
    error = int(_libc.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(function), ctypes.c_void_p(argument)))
    if not error:
        _libc.pthread_detach(thread)
    return error


def current_cpu() -> int | None:
    """Gives the CPU that the calling thread runs on, where the system tells, else None."""
    try:
        return int(_libc.sched_getcpu())
    except AttributeError:
        return None
