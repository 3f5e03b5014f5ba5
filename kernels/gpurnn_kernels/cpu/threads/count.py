"""The number of threads that calls may use: for the process, for the calls of one thread, and by default."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np


class _Process:
    """The number that `set_num_threads` has set, or the default once it was asked for."""

    count: int | None = None


class _Inside(threading.local):
    """The number that the innermost `Threads` of this thread has set."""

    count: int | None = None


_inside = _Inside()


def get_num_threads() -> int:
    found = _inside.count
    if found is None:
        found = _Process.count
    if found is None:
        found = _Process.count = default_threads()
    return found


def checked(count: int) -> int:
    """Gives a number of threads as an int. Raises TypeError or ValueError where it is none."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
        raise TypeError(f"number of threads: expected an integer, got {type(count).__name__}")
    if count < 1:
        raise ValueError(f"number of threads: expected at least 1, got {count}")
    return int(count)


def set_num_threads(count: int) -> None:
    _Process.count = checked(count)


class Threads:
    """`with Threads(n):` has the calls of this thread use n threads inside."""

    def __init__(self, count: int) -> None:
        self._count = checked(count)
        self._before: list[int | None] = []

    def __enter__(self) -> None:
        self._before.append(_inside.count)
        _inside.count = self._count

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _inside.count = self._before.pop()


def default_threads() -> int:
    """Gives GPURNN_NUM_THREADS, else OMP_NUM_THREADS, else NUMBA_NUM_THREADS, else the CPUs that this process may use.

    Raises ValueError where the first is no integer >= 1. The others belong to other libraries: a value that is no such number
    is passed over.
    """
    own = os.environ.get("GPURNN_NUM_THREADS")
    if own is not None:
        if not _is_count(own):
            raise ValueError(f"GPURNN_NUM_THREADS: expected an integer >= 1, got {own!r}")
        return int(own)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = os.environ.get(name, "").partition(",")[0]  # OpenMP's has a number for each level of nested regions
        if _is_count(value):
            return int(value)
    return usable_cpus()


def _is_count(text: str) -> bool:
    return text.strip().isdecimal() and int(text) >= 1


def usable_cpus() -> int:
    """Gives the CPUs that the process's affinity allows, but no more than the quotas of its control groups come to."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([count, *_quotas(Path("/"))])))


def _quotas(root: Path) -> Iterator[float]:
    """Gives the CPUs' worth of time that each control group of this process allows, of versions 1 and 2, up to the topmost
    group."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                mounts, read = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"], _quota_2
            elif "cpu" in controllers.split(","):
                mounts, read = [root / "sys/fs/cgroup" / name for name in (controllers, "cpu")], _quota_1
            else:
                continue
            for mount in mounts:
                group = mount / path.lstrip("/")
                for folder in (group, *group.parents):
                    with suppress(OSError, ValueError):
                        yield read(folder)
                    if folder == mount:
                        break


def _quota_2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text().split()
    return math.inf if quota == "max" else int(quota) / int(period)


def _quota_1(folder: Path) -> float:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return math.inf if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
