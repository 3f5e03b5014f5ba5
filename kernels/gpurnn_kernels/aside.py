"""Imports and compilations run on a thread of their own, so that nothing leaves them half done.

Signal handlers run on the main thread. An exception that they raise there (Ctrl-C, a time limit) would break off an import of
Numba, which then fails for the rest of the process, or a compilation, which may swallow it. Here it ends only the waiting: the
work goes on, and a later request finds it done or waits for the rest. A thread also has all of the recursion depth.
"""

import _thread
import threading
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import TypeVar

from .forks import forks_wait_for
from .limits import require_address_space

T = TypeVar("T")

_LOOK = 0.2  # seconds between looks at signals, which do not end a wait on Windows

_turn = threading.RLock()  # of the thread that works: one at a time
forks_wait_for(_turn)


class _Worker(threading.Thread):
    """Runs a task and holds what it returns or raises."""

    def __init__(self, task: Callable[[], object]) -> None:
        super().__init__(name="gpurnn compiler", daemon=False)  # the interpreter's end waits: LLVM must not lose its thread
        self._task = task
        self.result: object = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with _turn:
                self.result = self._task()
        except BaseException as error:
            self.error = error


def aside(task: Callable[[], T]) -> T:
    """Runs a task, which imports, compiles or loads, on another thread, one task after the other. Returns or raises what it
    does."""
    greenlets = not isinstance(_thread.start_new_thread, BuiltinFunctionType)  # gevent's or eventlet's, in place of threads
    if greenlets or isinstance(threading.current_thread(), _Worker):
        return task()
    require_address_space()
    worker = _Worker(task)
    try:
        worker.start()
    except RuntimeError:
        if worker.ident is not None:
            raise
        return task()  # no thread can be started, as while the interpreter ends
    while worker.is_alive():
        worker.join(_LOOK)
    if worker.error is not None:
        try:
            raise worker.error
        finally:
            worker.error = None  # a traceback that refers to this frame
    return worker.result  # type: ignore[return-value]
