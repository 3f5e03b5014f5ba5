"""The team's threads: where they come from, what they must survive, and how many there are."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Problem, assert_same_bits, python

import gpurnn
from gpurnn_kernels.cpu.threads import count, layout, system
from gpurnn_kernels.cpu.threads.team import Team

linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become somebody else")


def run(call: str, **environment: str | None) -> str:
    return python(f"from programs import threads; threads.{call}", timeout=120, **environment)


@linux
def test_no_descriptor_is_the_teams() -> None:
    run("descriptors()")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_patched_threads(library: str, when: str) -> None:
    pytest.importorskip(library)
    run(f"patched({library!r}, {when!r})", PYTHONWARNINGS="ignore")


@linux
@root
def test_no_more_threads() -> None:
    run("no_more_threads()")


def test_the_first_call_at_exit() -> None:
    run("first_call_at_exit()")


def test_an_interrupt_at_every_bytecode() -> None:
    run("interrupted_at_every_bytecode()")


@linux
def test_interrupts_by_signals() -> None:
    run("interrupted_by_signals()")


@linux
def test_a_long_call_ends_when_a_signals_handler_raises() -> None:
    run("limited_calls()")


@linux
def test_a_call_goes_on_when_a_signals_handler_returns() -> None:
    run("handled_signals()")


@pytest.mark.parametrize("state", ["spinning", "parked", "calling"])
def test_the_interpreter_ends(state: str) -> None:
    run(f"exits({state!r})")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks() -> None:
    run("forks()")


@linux
def test_openmp_of_pytorch() -> None:
    pytest.importorskip("torch")
    run("in_openmp()")


@linux
def test_threads_that_fall_asleep() -> None:
    run("threads_asleep(3000)")


@pytest.fixture
def a_team(monkeypatch: pytest.MonkeyPatch) -> Team:
    """A team of its own for the calls of a test, however small they are."""
    from gpurnn_kernels.cpu.threads import partition as schedule
    from gpurnn_kernels.cpu.threads.team import current_team

    monkeypatch.setattr(schedule, "_LEAST_CALL", 0.0)

    team = Team()
    monkeypatch.setattr(current_team, "team", team)
    return team


def results(p: Problem) -> Any:
    return p.run(), tuple(p.gradients().values())


def test_workers_that_never_come(a_team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller does what they have not begun."""
    p = Problem("gru", 4, 30, 13, 40, bidirectional=True)
    gpurnn.set_num_threads(1)
    expected = results(p)
    monkeypatch.setattr(system, "start_thread", lambda *_: 0)
    for threads in (2, 3):
        gpurnn.set_num_threads(threads)
        assert_same_bits(results(p), expected)
    assert a_team._helped_so_far() == 0


def test_a_thread_that_cannot_start(a_team: Team, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    p = Problem("lstm", 4, 30, 13, 40)
    gpurnn.set_num_threads(1)
    expected = results(p)
    monkeypatch.setattr(system, "start_thread", lambda *_: 11)
    gpurnn.set_num_threads(4)
    for _ in range(3):
        assert_same_bits(results(p), expected)
    assert [record.message for record in caplog.records if "threads can be started" in record.message] == [
        f"no more than 1 of 4 threads can be started: {os.strerror(11)}"
    ]


def test_a_caller_that_finds_the_team_taken(a_team: Team) -> None:
    p = Problem("lstm", 4, 30, 13, 40)
    gpurnn.set_num_threads(1)
    expected = results(p)
    gpurnn.set_num_threads(2)
    assert a_team.offers(2) == 2
    a_team._owner[0] = 1
    assert a_team.offers(2) == 1
    # taken after it was offered: what was made ready for two threads runs on one
    a_team._owner[0] = 0
    a_team.offers = lambda wanted: wanted  # type: ignore[method-assign]
    a_team._owner[0] = 1
    assert_same_bits(results(p), expected)
    assert a_team._helped_so_far() == 0


@linux
def test_workers_that_may_not_be_moved(a_team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers may forbid it; it is asked once."""
    p = Problem("lstm", 4, 30, 13, 40)
    gpurnn.set_num_threads(2)
    while a_team._helped_so_far() == 0:
        p.run()
    asked = []

    def refused(*_: Any) -> None:
        asked.append(1)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    monkeypatch.setattr(system, "current_cpu", lambda: min(os.sched_getaffinity(0)))
    for _ in range(3):
        a_team._move_workers()
    assert len(asked) == (1 if len(os.sched_getaffinity(0)) > 1 else 0)


def test_rests(a_team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a wait for a thread without a CPU calls keep to one, for longer each time while it goes on."""
    from gpurnn_kernels.cpu.threads import team as module

    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    waited = a_team._words[layout.WAITED // 8 :]
    waited[0] = 1_000_000
    for _ in range(8):  # a wait of 1 ms in 20 is borne
        a_team._notice(module.HELD_UP)
        assert a_team.offers(2) == 2
        now[0] += 0.02
    waited[0] = 3_000_000
    rests = []
    for _ in range(8):
        a_team._notice(module.HELD_UP)
        assert a_team.offers(2) == 1
        rests.append(a_team._rest_until - now[0])
        now[0] = a_team._rest_until
        assert a_team.offers(2) == 2
    assert rests == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5])
    now[0] += 10
    a_team._notice(module.HELD_UP)
    assert a_team.offers(2) == 2
    now[0] += 0.01
    a_team._notice(module.HELD_UP)
    assert a_team._rest_until - now[0] == pytest.approx(0.02)


def test_small_calls_keep_to_one_thread() -> None:
    gpurnn.set_num_threads(2)
    layer, x = gpurnn.LSTM(64, 64, seed=0), np.zeros((64, 8, 64), np.float32)
    assert "2 threads" in str(layer.plan(x))
    assert "one thread: to wake others" in str(layer.plan(x[:1]))


@pytest.mark.usefixtures("together")
def test_threads_of_a_block_and_of_a_stream() -> None:
    p = Problem("lstm", 3, 30, 13, 40)
    gpurnn.set_num_threads(3)
    with gpurnn.threads(1):
        assert gpurnn.get_num_threads() == 1
        assert "one thread" in str(p.layer.plan(p.x))
        with gpurnn.threads(2):
            assert "2 threads" in str(p.layer.plan(p.x))
        assert gpurnn.get_num_threads() == 1
    assert gpurnn.get_num_threads() == 3
    y, _ = p.run()
    for threads in (1, 2, None):
        stream = p.layer.stream(30, p.state, threads=threads)
        assert_same_bits(np.stack([stream.step(x_t) for x_t in p.x]), y)


@pytest.mark.parametrize("value", [0, -1])
def test_a_bad_number(value: int) -> None:
    layer = gpurnn.LSTM(3, 4)
    for use in (gpurnn.threads, gpurnn.set_num_threads, lambda n: layer.stream(threads=n)):
        with pytest.raises(ValueError, match=f"threads: expected at least 1, got {value}"):
            use(value)
        with pytest.raises(TypeError, match="threads: expected an integer, got float"):
            use(1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GPURNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "1"}, 3),
        ({"OMP_NUM_THREADS": "5", "NUMBA_NUM_THREADS": "1"}, 5),
        ({"OMP_NUM_THREADS": "1,4"}, 1),
        ({"OMP_NUM_THREADS": "many", "NUMBA_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "", "NUMBA_NUM_THREADS": "0"}, None),
    ],
)
def test_what_the_default_follows(environment: dict[str, str], expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPURNN_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert count.default_threads() == (count.usable_cpus() if expected is None else expected)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_quotas_of_control_groups(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "150000 100000\n")
    write(tmp_path / "sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    assert min(count._quotas(tmp_path)) == 1.5
    write(tmp_path / "proc/self/cgroup", "3:cpu,cpuacct:/c\n2:memory:/\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n")
    assert min(count._quotas(tmp_path)) == 0.5
    assert list(count._quotas(tmp_path / "nowhere")) == []


@pytest.mark.parametrize(("quotas", "expected"), [([], 4), ([1.5], 2), ([0.2, 3.0], 1), ([float("inf")], 4), ([9.0], 4)])
def test_cpus_within_a_quota(quotas: list[float], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    else:
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(count, "_quotas", lambda _: iter(quotas))
    assert count.usable_cpus() == expected
