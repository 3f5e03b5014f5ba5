"""Commands inside the OpenMP team of a program that has one.

OpenMP's threads spin for a while after each parallel region, in the hope of the next one. A second pool of threads would wait
for the CPUs on which they spin. So, inside a region, OpenMP's threads do the work.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .team import Team, current_team


class _Process:
    """A mark that this process was forked and may not use regions: OpenMP's threads do not outlive a fork, and libgomp
    would wait for them."""

    forked = False


def _after_fork() -> None:
    _Process.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def region_team(folder: Path) -> Team | None:
    """Gives the team of the libgomp that this process has loaded from a folder; None where it has loaded none."""
    no_load: int = getattr(os, "RTLD_NOLOAD", 0)
    for path in sorted(folder.glob("libgomp*.so*")) if no_load else ():
        try:
            library = ctypes.CDLL(str(path), mode=no_load)
            parallel, rank = (
                ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in ("GOMP_parallel", "omp_get_thread_num")
            )
        except (AttributeError, OSError):
            continue
        if parallel and rank:
            team = Team()
            team.use_region(parallel, rank)
            return team
    return None


@contextmanager
def openmp_of(folder: Path) -> Iterator[None]:
    """Has calls of this thread run inside the OpenMP team of the libgomp in a folder, if there is one."""
    team = None if _Process.forked else region_team(folder)
    before, current_team.team = current_team.team, team or current_team.team
    try:
        yield
    finally:
        current_team.team = before
