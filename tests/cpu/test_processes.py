"""Forked and spawned processes, processes with fewer CPUs than threads, and processes beside busy ones."""

import os

import pytest
from helpers import python

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
pins = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be pinned on this system")


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forks), "spawn"])
def test_multiprocessing(method: str) -> None:
    python(f"from programs import processes\nif __name__ == '__main__': processes.processes({method!r})")


@forks
def test_fork_during_calls() -> None:
    python("from programs import processes; processes.fork_during_calls()", timeout=60)


@forks
def test_fork_with_locks_held() -> None:
    python("from programs import processes; processes.fork_with_locks_held()", timeout=60)


@pins
def test_more_threads_than_cpus() -> None:
    python("from programs import processes; processes.pinned()")


@pins
def test_beside_busy_processes() -> None:
    python("from programs import processes\nif __name__ == '__main__': processes.beside_busy_processes()")
