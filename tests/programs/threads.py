"""Programs of tests of threads, in processes of their own: `python("from programs import threads; threads.descriptors()")`."""

import atexit
import itertools
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
from helpers import Problem, assert_same_bits, leaves
from reference_cells import CELLS

import gpurnn

# what takes and gives back the team
FILES = (
    "threads/team.py",
    "threads/count.py",
    "programs/call.py",
    "programs/command.py",
    "programs/packer.py",
    "cpu/engine.py",
)


def shared_problem() -> tuple[Problem, Callable[[], Any], Any]:
    """A layer whose calls two threads share, a call of every kind, and what it gives on one."""
    from gpurnn_kernels.cpu.threads import partition as schedule

    schedule._LEAST_CALL = 0.0
    p = Problem("lstm", 4, 30, 13, 40)

    def call() -> Any:
        stream = p.layer.stream(30)
        return p.run(), tuple(p.gradients().values()), tuple(leaves(p.layer(p.x))), stream.step(p.x[0])

    gpurnn.set_num_threads(1)
    expected = call()
    gpurnn.set_num_threads(2)
    return p, call, expected


def team() -> Any:
    from gpurnn_kernels.cpu.threads.team import TEAM

    return TEAM


def never_rest() -> None:
    """Calls are shared however busy the machine is."""
    team()._rest_until = 0.0
    team()._notice = lambda _: None


def open_files() -> set[str]:
    """The descriptors of this process, but for the one that lists them."""
    return {f"{name} {os.readlink(f'/proc/self/fd/{name}')}" for name in os.listdir("/proc/self/fd") if name_is_open(name)}


def name_is_open(name: str) -> bool:
    try:
        os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return False
    return "/proc/" not in os.readlink(f"/proc/self/fd/{name}")


def descriptors() -> None:
    """A daemon's start closes all descriptors, and the program opens others in their place."""
    _, call, expected = shared_problem()
    before = open_files()
    assert_same_bits(call(), expected)
    assert open_files() == before
    os.closerange(3, 256)
    here, there = socket.socketpair()
    read, write = os.pipe()
    there.send(b"mine" * 100)
    os.write(write, b"mine" * 100)
    for _ in range(20):
        assert_same_bits(call(), expected)
        threading.Event().wait(0.002)  # so that workers park
    assert here.recv(4000) == os.read(read, 4000) == b"mine" * 100


def patched(library: str, when: str) -> None:
    """A library that puts its own in the place of Python's threads."""

    def patch() -> None:
        if library == "gevent":
            from gevent import monkey

            monkey.patch_all()
        else:
            import eventlet

            eventlet.monkey_patch()

    if when == "before":
        patch()
    _, call, expected = shared_problem()
    if when == "after":
        patch()
    for _ in range(5):
        assert_same_bits(call(), expected)


def no_more_threads() -> None:
    """The system has no more threads for this user."""
    from gpurnn_kernels.cpu.threads.team import Team, current_team

    _, call, expected = shared_problem()
    assert_same_bits(call(), expected)  # so that all is imported, compiled or loaded: the next user may not read it
    os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    current_team.team = Team()
    for _ in range(5):
        assert_same_bits(call(), expected)
    assert current_team.team.most == 1


def first_call_at_exit() -> None:
    """The interpreter starts no threads any more."""
    _, call, expected = shared_problem()
    atexit.register(lambda: assert_same_bits(call(), expected))


def interrupted_at_every_bytecode() -> None:
    """KeyboardInterrupt, at each bytecode in turn around the team, leaves it free, and later calls right."""
    p, _, _ = shared_problem()
    never_rest()
    stream, out = p.layer.stream(30, threads=2), np.empty((30, 40), np.float32)
    calls: list[Callable[[], Any]] = [
        lambda: p.layer(p.x),
        lambda: stream.step(p.x[0], out=out),
        lambda: p.layer.vjp(p.x)[1](np.ones((4, 30, 40), np.float32)),
    ]
    for call in calls:
        call()
        expected = leaves(p.layer(p.x))
        for count in itertools.count(1):
            done = not _interrupted(call, count)
            assert team()._owner[0] == 0
            if count % 50 == 0 or done:
                assert_same_bits(tuple(leaves(p.layer(p.x))), tuple(expected))
            if done:
                break
        assert count > 50, "the trace has seen nothing"
    assert team().offers(2) == 2


def _interrupted(call: Callable[[], Any], count: int) -> bool:
    """Runs a call with a KeyboardInterrupt at the count-th bytecode of the package's; -> whether there were so many."""
    left = count

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.replace(os.sep, "/").endswith(FILES):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return left <= 0


def interrupted_by_signals() -> None:
    """Signals that raise KeyboardInterrupt, as many as calls of different kinds."""
    p, call, expected = shared_problem()
    never_rest()
    assert_same_bits(call(), expected)  # so that all is compiled, or loaded

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    rng = np.random.default_rng(0)
    met = 0
    while met < 1000:
        try:
            signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-5, 1e-3)))
            while True:
                p.layer(p.x)
        except KeyboardInterrupt:
            met += 1
            assert team()._owner[0] == 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert_same_bits(call(), expected)
    assert team().offers(2) == 2


class Limit(Exception):
    """An exception that a handler of a time limit raises."""


def long_calls() -> list[Callable[[], Any]]:
    """Calls that take minutes, in a loop over steps of one thread or two, of two directions, and back through time."""
    small, wide = np.float32(0.5), gpurnn.LSTM(1024, 1024, proj_size=1, seed=0)
    both = gpurnn.LSTM(1024, 1024, proj_size=1, bidirectional=True, seed=0)
    x = np.broadcast_to(small, (10**6, 1, 1024))
    tiny = gpurnn.GRU(1, 8, seed=0)
    _, vjp = tiny.vjp(np.zeros((3 * 10**6, 2, 1), np.float32))
    return [lambda: wide(x), lambda: both(x), lambda: vjp(np.zeros((3 * 10**6, 2, 8), np.float32))]


def limited_calls() -> None:
    """An exception that a handler of a signal raises comes out of a long call; the layer, and all others, work on."""
    _, call, expected = shared_problem()

    def limit(*_: Any) -> None:
        raise Limit

    signal.signal(signal.SIGALRM, limit)
    for threads in (1, 2):
        gpurnn.set_num_threads(threads)
        for long in long_calls():
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            try:
                long()
            except Limit:
                pass
            else:
                raise AssertionError("the call has ended by itself")
            assert team()._owner[0] == 0
            assert_same_bits(call(), expected)


def handled_signals() -> None:
    """Handlers that raise nothing leave a call as it is; one may call a layer itself."""
    _, call, expected = shared_problem()
    long = Problem("lstm", 100_000, 2, 8, 64)  # longer than the time between two looks
    wanted = long.run()
    met = []

    def handle(*_: Any) -> None:
        met.append(1)
        assert_same_bits(call(), expected)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    for _ in range(3):
        assert_same_bits(long.run(), wanted)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert met


def exits(state: str) -> None:
    """The interpreter ends while workers spin, while they are parked, or in the middle of a call of a daemon thread."""
    _, call, _ = shared_problem()
    call()
    if state == "parked":
        threading.Event().wait(0.05)
    if state == "calling":
        layer = gpurnn.LSTM(1024, 1024, proj_size=1, seed=0)
        x = np.broadcast_to(np.float32(0.5), (10**7, 1, 1024))  # hours, and 40 MB of y
        threading.Thread(target=lambda: layer(x), daemon=True).start()
        while not team()._owner[0]:
            threading.Event().wait(0.01)


def in_openmp() -> None:
    """Calls from PyTorch's modules run by its OpenMP threads, or by the package's own; a forked child has only the latter."""
    import torch

    from gpurnn.interop.torch import LSTM
    from gpurnn.interop.torch.calls import _LIBRARIES
    from gpurnn_kernels.cpu.threads import partition as schedule
    from gpurnn_kernels.cpu.threads.openmp import region_team

    schedule._LEAST_CALL = 0.0
    torch.manual_seed(0)
    module, x = LSTM(13, 40, bidirectional=True), torch.randn(4, 30, 13)

    def call() -> Any:
        y, (h, c) = module(x)
        module.zero_grad()
        (y.sum() + h.sum() + c.sum()).backward()
        return [a.detach().numpy().copy() for a in (y, h, c)] + [one.grad.numpy().copy() for one in module.parameters()]

    torch.set_num_threads(1)
    gpurnn.set_num_threads(1)
    expected = tuple(call())
    torch.set_num_threads(2)
    for threads in (3, 2):
        gpurnn.set_num_threads(threads)
        for _ in range(5):
            assert_same_bits(tuple(call()), expected)
    region = region_team(_LIBRARIES)
    assert region is not None, "PyTorch has loaded no libgomp"
    region._notice = lambda _: None  # type: ignore[method-assign]
    region._rest_until = 0.0
    while region._helped_so_far() == 0:
        assert_same_bits(tuple(call()), expected)
    thread = threading.Thread(target=lambda: assert_same_bits(tuple(call()), expected))
    thread.start()
    thread.join()
    helped = region._helped_so_far()
    pid = os.fork()
    if pid == 0:
        y = module(x.detach())[0].detach().numpy()
        assert_same_bits((y,), (expected[0],))
        os._exit(0 if region._helped_so_far() == helped else 1)
    assert os.waitpid(pid, 0)[1] == 0


def forks() -> None:
    """A child, and a child's child, with threads of their own, while the parent's are parked or at work."""
    _, call, expected = shared_problem()
    assert_same_bits(call(), expected)
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            assert team()._started == 0
            assert_same_bits(call(), expected)
            grandchild = os.fork()
            if grandchild == 0:
                assert_same_bits(call(), expected)
                os._exit(0)
            os._exit(os.waitpid(grandchild, 0)[1])
        assert_same_bits(call(), expected)
        assert os.waitpid(pid, 0)[1] == 0


def threads_asleep(calls: int) -> None:
    """Threads fall asleep at random places between publishing, claiming, computing and reporting: the same bits, no hang."""
    from gpurnn_kernels.cpu.threads import layout
    from gpurnn_kernels.cpu.threads import partition as schedule
    from programs import random_sleeps

    never_rest()
    schedule._choose = lambda *_: ("units", "forced")  # type: ignore[assignment]
    problems = [Problem(cell, 3, rows, 9, 45, bidirectional=rows == 7) for cell in CELLS for rows in (2, 7)]
    problems += [Problem(kind, 3, 7, 9, 45) for kind in ("proj_size", "peepholes", "gru clip")]
    gpurnn.set_num_threads(1)
    expected = [(q.run(), tuple(q.gradients().values())) for q in problems]
    team()._words[layout.HOOK // 8] = random_sleeps.hook()
    for k in range(calls):
        gpurnn.set_num_threads(2 + k % 3)
        index = k % len(problems)
        q = problems[index]
        assert_same_bits(q.run(), expected[index][0])
        assert_same_bits(tuple(q.gradients().values()), expected[index][1])
    assert team()._helped_so_far() > 0
