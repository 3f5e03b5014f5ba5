"""Signals during a long command.

Python runs handlers in its main thread, which is inside machine code during a command. So it looks for signals between chunks
of steps. Where a handler raises, all threads leave off, and the exception comes out of the call.

The memory is a table of int64 words, and the names are offsets in bytes. STOP says that a command's shares leave off, NEXT
when the main thread looks again.
"""

import ctypes
import threading
from typing import Any

import numpy as np

from ..codegen.inline import called
from ..codegen.intrinsics import call0, call2, call_words, load_acquire, load_word, store_release, store_word
from . import system
from .clock import CLOCK_WORDS, clock, clock_words

FORKED = 2  # in STOP
EVERY = 250_000_000  # ns between looks: each takes the interpreter's lock
STOP, NEXT, MAIN, SELF, ENSURE, CHECK, FETCH, RELEASE, KIND, VALUE, TRACEBACK, CLOCK = (8 * i for i in range(12))

_restore: Any = ctypes.pythonapi.PyErr_Restore
_restore.argtypes = [ctypes.c_void_p] * 3
_restore.restype = None


@called
def begin(interrupts):
    """Begins a command. Gives the address at which its shares look, or 0 where the calling thread is not the main one."""
    if call2(load_word(interrupts + SELF), 0, 0) != load_word(interrupts + MAIN):
        return 0
    store_word(interrupts + STOP, 0)
    store_word(interrupts + NEXT, 0)
    return interrupts


@called
def stopped(interrupts, asks):
    """Tells whether a command's shares leave off. asks: the calling thread is the main one, and may look for signals."""
    if asks and load_acquire(interrupts + STOP) == 0:
        now, following = clock(interrupts + CLOCK), load_word(interrupts + NEXT)
        if now >= following:
            store_word(interrupts + NEXT, now + EVERY)
            if following:
                state = call0(load_word(interrupts + ENSURE))
                if call0(load_word(interrupts + CHECK)):
                    error = interrupts + KIND, interrupts + VALUE, interrupts + TRACEBACK
                    call_words(load_word(interrupts + FETCH), error)
                    store_release(interrupts + STOP, 1)
                call2(load_word(interrupts + RELEASE), state, 0)
    return load_acquire(interrupts + STOP)


@called
def leave_off(interrupts):
    """Has a command of the main thread leave off because a handler has forked, unless a handler has raised, too."""
    if load_word(interrupts + STOP) == 0:
        store_release(interrupts + STOP, FORKED)


class Interrupts:
    """The memory, at `address`, and the exception that a handler has raised."""

    def __init__(self) -> None:
        self._words = np.zeros((CLOCK + CLOCK_WORDS) // 8, np.int64)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._words))  # workers outlive the interpreter
        self.address = int(self._words.ctypes.data)
        calls = {ENSURE: "PyGILState_Ensure", CHECK: "PyErr_CheckSignals", FETCH: "PyErr_Fetch", RELEASE: "PyGILState_Release"}
        for place, name in calls.items():
            self._words[place // 8] = system.address_in_python(name)
        self._words[SELF // 8] = system.SELF
        self._words[CLOCK // 8 :] = clock_words(self.address + CLOCK)
        self.reset()

    def reset(self) -> None:
        """Learns which thread is the main one. In a forked child it may be another one."""
        self._words[MAIN // 8] = threading.main_thread().ident or 0

    def raise_error(self) -> None:
        """Raises the exception of a handler during a command that left off, or says what such a command means in a forked
        child."""
        if self._words[STOP // 8] == FORKED:
            raise RuntimeError("a call that other threads share cannot go on in a child that a signal's handler has forked")
        _restore(*(int(word) for word in self._words[KIND // 8 : TRACEBACK // 8 + 1]))


INTERRUPTS = Interrupts()
