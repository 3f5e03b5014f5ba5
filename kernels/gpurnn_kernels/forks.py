"""Locks that a fork takes first. A child lacks the threads that would release its parent's locks, and would wait for ever.

A fork waits for whoever holds a lock of `forks_wait_for`, and for threads that compile with Numba, whoever started them: a
child loads kernels, and needs Numba's and LLVM's locks.
"""

import os
import sys
from collections.abc import Iterator
from functools import partial
from operator import methodcaller
from typing import Any

_held: list[Any] = []  # of Numba's and LLVM's locks, by the thread that forks


def _locks() -> Iterator[Any]:
    """The locks of Numba and LLVM, in the order in which a compilation takes them; none before they are imported."""
    compiler = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    library = getattr(sys.modules.get("llvmlite.binding.ffi"), "lib", None)
    if compiler is not None and library is not None:
        yield from (compiler._lock, library._lock._lock)


def _take() -> None:
    # without a bytecode between taking and noting down, where a signal's handler could raise
    _held.extend(filter(methodcaller("acquire"), _locks()))


def _give_back() -> None:
    while _held:
        _held.pop().release()


def _renew() -> None:
    _held.clear()
    for lock in _locks():
        _free(lock)


def _free(lock: Any) -> None:
    """Gives back, in a child, what its fork has taken, or was kept from taking by what a signal's handler raised."""
    if lock._is_owned():
        lock.release()
    else:
        lock._at_fork_reinit()


def forks_wait_for(lock: Any) -> None:
    """Has forks take a reentrant lock, before those that were named earlier."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=partial(_free, lock))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take, after_in_parent=_give_back, after_in_child=_renew)
