"""Waiting for another thread, and the barrier of threads that share the steps of one recurrence.

A waiter spins, then gives its CPU away at every look. How long it spins adapts: halved each time that spinning was in vain
(the other thread has no CPU, or waits for this one), doubled when it paid. So threads without a CPU of their own still make
progress at the price of a context switch a step.
"""

import ctypes
import os
from typing import Any

from .inline import called, inlined
from .memory import call0, load_acquire, load_word, pause, store_release, store_word

SPINS = 200  # looks before a waiter gives its CPU away, 25 ns each
LINE = 64  # bytes that no two threads write


def _yield_function() -> Any:
    if os.name == "nt":
        return ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
    return ctypes.CDLL(None).sched_yield


YIELD_ADDRESS = ctypes.cast(_yield_function(), ctypes.c_void_p).value or 0


@called
def wait_for(address, value, patience, yield_address):  # type: ignore[no-untyped-def]
    """Until the word at `address` is at least `value`. `patience`: the address of this waiter's own limit of spins."""
    looks = 0
    limit = load_word(patience)
    while load_acquire(address) < value:
        looks += 1
        if looks < limit:
            pause()
        else:
            call0(yield_address)
    if looks >= limit:
        store_word(patience, max(4, limit >> 1))
    elif looks > 0 and limit < SPINS:
        store_word(patience, min(SPINS, 2 * limit))


@inlined
def meet(work):  # type: ignore[no-untyped-def]
    """Every work of a group publishes how often it has come and waits for the others to come as often."""
    if work.members > 1:
        work.meetings += 1
        store_release(work.flags + LINE * work.member, work.meetings)
        for other in range(work.members):
            if other != work.member:
                wait_for(work.flags + LINE * other, work.meetings, work.flags + LINE * work.member + 8, work.yield_address)
