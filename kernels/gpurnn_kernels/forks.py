"""A fork waits for threads that compile with Numba, whoever started them. The child lacks these threads but loads kernels,
and would find the locks of Numba and LLVM held for ever."""

import os
import sys
from collections.abc import Iterator
from operator import methodcaller
from typing import Any

_held: list[Any] = []


def _locks() -> Iterator[Any]:
    """Gives the locks of Numba and LLVM, in the order in which a compilation takes them; none before the two are imported."""
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
        lock._at_fork_reinit()


def forks_wait_for(turn: Any) -> None:
    """Has forks first take a reentrant lock under which this package compiles."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_take, after_in_parent=_give_back, after_in_child=_renew)
        os.register_at_fork(before=turn.acquire, after_in_parent=turn.release, after_in_child=turn._at_fork_reinit)
