"""Many Python threads at once: on one layer, while its parameters or the number of threads change."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import Problem, assert_same_bits, leaves, python
from reference_cells import CELLS

import gpurnn

every_cell = pytest.mark.parametrize("cell", CELLS)
pytestmark = pytest.mark.usefixtures("together")


@pytest.fixture
def _hurried() -> Iterator[None]:
    """Python changes threads as often as it can, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def all_at_once(count: int, share: Callable[[int], None]) -> None:
    """Runs work(0) to work(count - 1) on threads that start together, and raises what any of them raised."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        start.wait()
        try:
            share(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("_hurried")
@every_cell
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "with state"])
@pytest.mark.parametrize("threads", [1, 2])
def test_one_layer_for_32_threads(cell: str, plain: bool, threads: int) -> None:
    gpurnn.set_num_threads(threads)
    p = Problem(cell, 4, 6, 5, 17, num_layers=2)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((3 + k % 3, 6, 5)).astype(np.float32) for k in range(32)]
    expected = [leaves(p.layer(x, None if plain else p.state)) for x in inputs]
    fresh = Problem(cell, 4, 6, 5, 17, num_layers=2).layer  # packs its weights in the race, too

    def share(index: int) -> None:
        for _ in range(100):
            got = leaves(fresh(inputs[index], None if plain else p.state))
            assert_same_bits(tuple(got), tuple(expected[index]))

    all_at_once(32, share)


@pytest.mark.usefixtures("_hurried")
@every_cell
def test_gradients_and_streams_from_many_threads(cell: str) -> None:
    gpurnn.set_num_threads(2)
    problems = [Problem(cell, 5, 30, 5, 40, seed=0, lengths=[k % 6] * 30 if k % 2 else None) for k in range(6)]
    p = problems[0]
    for q in problems:
        q.layer = p.layer
    expected = [q.gradients() for q in problems]
    y, _ = p.run()

    def share(index: int) -> None:
        for _ in range(10):
            assert_same_bits(problems[index].gradients(), expected[index])
            stream = p.layer.stream(30, p.state)
            for t in range(5):
                assert_same_bits(stream.step(p.x[t]), y[t])

    all_at_once(6, share)


@pytest.mark.usefixtures("_hurried")
@every_cell
def test_new_parameters_during_calls(cell: str) -> None:
    """Every call has the old ones or the new ones."""
    p, q = Problem(cell, seed=1, num_layers=2), Problem(cell, seed=2, num_layers=2)
    wanted = [[a.tobytes() for a in leaves(r.layer(p.x))] for r in (p, q)]
    over = threading.Event()

    def share(index: int) -> None:
        if index == 0:
            for k in range(60):
                p.layer.load_params((q, p)[k % 2].params)
            over.set()
        while not over.is_set():
            assert [a.tobytes() for a in leaves(p.layer(p.x))] in wanted
            params = p.layer.params
            r = (p, q)[int(params["layers.0.b"][0] == q.params["layers.0.b"][0])]
            assert_same_bits(params, r.params)

    all_at_once(6, share)


@pytest.mark.usefixtures("_hurried")
@every_cell
def test_numbers_of_threads_change_during_calls(cell: str) -> None:
    p = Problem(cell, 4, 30, 5, 40)
    y, state = p.run()
    plain = tuple(leaves(p.layer(p.x)))
    grads = p.gradients()
    over = threading.Event()

    def share(index: int) -> None:
        if index == 0:
            for k in range(60):
                gpurnn.set_num_threads(1 + k % 3)
                assert_same_bits(p.layer(p.x, p.state), (y, state))
            over.set()
        stream = p.layer.stream(30, p.state)
        t = 0
        while not over.is_set():
            assert_same_bits(tuple(leaves(p.layer(p.x))), plain)
            assert_same_bits(p.gradients(), grads)
            if t < 4:
                assert_same_bits(stream.step(p.x[t]), y[t])
                t += 1

    all_at_once(4, share)


def test_teams_leave_nothing_behind() -> None:
    p = Problem("lstm", 2, 30, 5, 40)

    def counts() -> tuple[int, int]:
        files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
        return files, threading.active_count()

    for _ in range(2):
        for n in (1, 2, 3, 4):
            gpurnn.set_num_threads(n)
            p.run()
        before = counts()
    for n in (3, 2, 4) * 5:
        gpurnn.set_num_threads(n)
        p.run()
    assert counts() == before


@pytest.mark.parametrize("value", ["", "0", "-1", "two", "1.5", "2,3", "0x2"])
def test_a_bad_number_in_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpurnn_kernels.cpu.threads import count

    monkeypatch.setenv("GPURNN_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"GPURNN_NUM_THREADS.*'{value}'"):
        count.default_threads()


def test_a_bad_number_shows_at_first_use() -> None:
    python("from programs import processes; processes.first_use_refuses_a_bad_number_of_threads()", GPURNN_NUM_THREADS="many")


def test_the_default_number() -> None:
    for given in ("1", " 3 "):
        assert (
            python("from programs import processes; processes.number_of_threads()", GPURNN_NUM_THREADS=given)
            == f"{int(given)}\n"
        )
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert python("from programs import processes; processes.number_of_threads()", GPURNN_NUM_THREADS=None) == f"{expected}\n"


def test_the_interpreter_ends_while_threads_call() -> None:
    for _ in range(3):
        python("from programs import processes; processes.exit_with_threads_at_work()")
