"""Programs that tests of forks run in processes of their own: a child has none of its parent's other threads."""

import faulthandler
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from helpers import Problem, assert_same_bits

import gpurnn

LIMIT = 60  # seconds in which a child returns


def child(task: Callable[[], object]) -> int:
    """Forks a child that runs a task; a child that hangs says where."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            task()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(status)
    return pid


def ends_well(pid: int) -> bool:
    return os.waitpid(pid, 0)[1] == 0


def while_a_layer_is_made() -> None:
    """Another thread is in the middle of making a layer."""
    from gpurnn.layers import description as layer

    plain, inside, over = layer.Spec, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        inside.set()
        over.wait()
        return plain(*arguments)

    layer.Spec = slow  # type: ignore[assignment, misc]
    thread = threading.Thread(target=lambda: gpurnn.LSTM(3, 4))
    thread.start()
    inside.wait()
    layer.Spec = plain  # type: ignore[misc]
    assert ends_well(child(lambda: gpurnn.LSTM(3, 4)))
    over.set()
    thread.join()


def while_others_compile() -> None:
    """Threads of the program's own compile with Numba; children load kernels that the parent has not loaded."""
    from numba import njit

    p = Problem("gru", 2, 3, 4, 5)
    assert gpurnn.get_num_threads()  # imports the backend
    over = threading.Event()

    def compile_functions() -> None:
        count = 0
        while not over.is_set():
            count += 1
            names: dict[str, Any] = {}
            exec(f"def double(x):\n  return {count} * x", names)
            assert njit(names["double"])(2) == 2 * count

    threads = [threading.Thread(target=compile_functions) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            assert ends_well(child(p.run))
    finally:
        over.set()
        for thread in threads:
            thread.join()


def while_others_call_first(after: float) -> None:
    """Another thread makes its first layer and call, which import what is imported late, `after` seconds ago."""
    ignored: list[Any] = []
    sys.unraisablehook = ignored.append

    def first() -> None:
        gpurnn.GRU(3, 5, seed=0)(np.zeros((4, 2, 3), np.float32))

    thread = threading.Thread(target=first)
    thread.start()
    time.sleep(after)
    assert ends_well(child(first))
    thread.join()
    assert not ignored


def while_a_file_is_read() -> None:
    """Another thread is in the middle of a file, where safetensors may hold locks of its own: the fork waits for it."""
    from gpurnn.layers import files

    plain, inside, over = files._read, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        inside.set()
        time.sleep(0.5)
        found = plain(*arguments)
        over.set()
        return found

    def load() -> None:
        assert over.is_set()
        gpurnn.load(path)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.safetensors"
        gpurnn.GRU(3, 5).save(path)
        files._read = slow
        thread = threading.Thread(target=gpurnn.load, args=(path,))
        thread.start()
        inside.wait()
        assert ends_well(child(load))
        thread.join()


def in_a_handler(shared: str) -> None:
    """A signal's handler forks during calls that two threads share by rows or by units: the parent's call ends as ever, the
    child's too, or says that it cannot since a thread of the parent has its rows. Ends once a child has met that, or did not
    in three calls by units."""
    from gpurnn_kernels.cpu.threads import partition as schedule
    from gpurnn_kernels.cpu.threads.team import TEAM

    schedule._LEAST_CALL = 0.0
    schedule._choose = lambda *_: (shared, "forced")  # type: ignore[assignment]
    TEAM._notice = lambda _: None  # type: ignore[method-assign]
    gpurnn.set_num_threads(2)
    p = Problem("lstm", 100_000, 8, 8, 64)  # longer than the time between two looks at signals
    expected = p.layer(p.x)
    met: list[int] = []
    while len(met) < 3 if shared == "units" else 3 not in met:
        met += _forked_in_a_call(lambda: assert_same_bits(p.layer(p.x), expected))
    assert shared == "rows" or 3 not in met


def _forked_in_a_call(call: Callable[[], None]) -> list[int]:
    """The exit status of a child that a handler forks during a call: 0, or 3 where its call has said that it cannot go on;
    none if the call had ended before."""
    children: list[int] = []

    def fork(*_: Any) -> None:
        children.append(os.fork())
        if children[-1] == 0:
            faulthandler.dump_traceback_later(LIMIT, exit=True)

    signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    status = 0
    try:
        call()
    except RuntimeError as error:
        assert "forked" in str(error)
        status = 3
    signal.setitimer(signal.ITIMER_REAL, 0)
    if children == [0]:
        os._exit(status)
    assert status == 0
    found = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert set(found) <= {0, 3}
    return found
