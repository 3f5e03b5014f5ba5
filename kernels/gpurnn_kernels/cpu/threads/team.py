"""The process's team: workers that start at the first use and park between commands. It decides when calls run on one thread.

Nothing here waits or locks. A caller takes and gives back the team within machine code (`commands.py`), where no exception can
come between the two. A caller that finds it taken runs alone. Workers are never ended: they park, and go with the process.
"""

import ctypes
import logging
import math
import os
import signal
import threading
import time
from typing import Any

import numpy as np

from ...spec import Array
from ..codegen.compile import entry, kernel_address
from . import layout, system
from .clock import CLOCK_WORDS, clock_words
from .commands import ALONE, HELD_UP, INTERRUPTED, run_command, serve, serve_region
from .interrupts import INTERRUPTS
from .phases import SPINS

log = logging.getLogger("gpurnn")
_SETTLED = 0.005  # seconds within which workers should come from where they were moved
_MOVED_AGAIN = 2.0  # seconds after which workers that never came are moved once more
_SHORTEST_REST, _LONGEST_REST = 0.02, 0.5  # seconds
_MOST_WAITED = 0.1  # of the time


def run_team(team, size, interrupts, shares, starts, count):
    """The function that Python calls for a command: `run_command`."""
    return run_command(team, size, interrupts, shares, starts, count)


_run = entry("int64(int64, int64, int64, int64, int64, int64)", run_team)


class Team:
    """A calling thread and its workers. `address` is that of the memory that `layout.py` describes."""

    def __init__(self) -> None:
        memory = np.zeros((layout.BYTES + layout.BLOCK) // 8, np.int64)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # workers outlive the interpreter
        start = -memory.ctypes.data % layout.BLOCK // 8
        self._words = memory[start : start + layout.BYTES // 8]
        self.address = int(self._words.ctypes.data)
        self._owner: Any = self._words.data
        self._rest = 0.0
        self._rest_until = 0.0
        self._held_up_at = 0.0  # or the end of the last rest
        self._moved_at = -math.inf
        self._moves = True
        self.reset()

    def reset(self) -> None:
        """Forgets the workers, which a forked child does not have."""
        self._words[:] = 0
        self._started = 0
        self.most = layout.MOST_THREADS  # threads that could be had
        self._helped = -1
        for place, value in (
            (layout.PATIENCE, SPINS),
            (layout.YIELD, system.YIELD),
            (layout.SLEEP, system.SLEEP),
            (layout.RELEASE, system.RELEASE),
            (layout.ACQUIRE, system.ACQUIRE),
            (layout.NEW_LOCK, system.NEW_LOCK),
            (layout.THREAD_ID, system.THREAD_ID),
            (layout.BLOCK_SIGNALS, system.BLOCK_SIGNALS),
            (layout.SIGNALS, getattr(signal, "SIG_BLOCK", 0)),
        ):
            self._words[place // 8] = value
        self._words[layout.ALL_SIGNALS // 8 : layout.CLOCK // 8] = -1
        self._words[layout.CLOCK // 8 : (layout.CLOCK + CLOCK_WORDS) // 8] = clock_words(self.address + layout.CLOCK)

    def use_region(self, parallel: int, rank: int) -> None:
        """Runs commands in parallel regions of OpenMP, by the addresses of its functions, instead of on workers."""
        self._words[layout.PARALLEL // 8] = parallel
        self._words[layout.RANK // 8] = rank
        self._words[layout.SERVE // 8] = kernel_address(serve_region, "float32")

    def offers(self, wanted: int) -> int:
        """Gives the number of threads that a call counts on when it wants so many: one, while another caller has the team
        or it rests."""
        if wanted == 1 or self._owner[0] or (self._rest_until and time.monotonic() < self._rest_until):
            return 1
        if wanted > self._started + 1:
            self._start(wanted)
        return min(wanted, self.most)

    def _start(self, size: int) -> None:
        """Starts the workers that `size` threads need. Two callers at once may start one too many, which helps as well."""
        if self._words[layout.PARALLEL // 8]:
            self._started = size - 1
        while self._started < min(size, self.most) - 1:
            error = system.start_thread(kernel_address(serve, "float32"), self.address)
            if error:
                self.most = self._started + 1
                log.warning("no more than %d of %d threads can be started: %s", self.most, size, os.strerror(error))
            else:
                self._started += 1

    def run(self, size: int, shares: Array, starts: Array) -> None:
        """Runs a table of shares with `size` threads at most. Shares from starts[p] to starts[p + 1] are meant for thread
        p."""
        team = self.address if size > 1 else 0
        found = _run(team, size, INTERRUPTS.address, shares.ctypes.data, starts.ctypes.data, len(shares))
        if found:
            self.conclude(found)

    def conclude(self, found: int) -> None:
        """Takes note of what a command has met, and raises the exception that a signal handler has raised meanwhile."""
        if found & INTERRUPTED:
            INTERRUPTS.raise_error()
        self._notice(found)

    def _notice(self, found: int) -> None:
        """Has the next calls rest if waits for a thread without a CPU took more than a tenth of the time: a virtual
        machine's CPUs are taken away now and then. Where no worker came, Linux may keep the workers on the caller's CPU, on
        an idle machine too. They are moved away once; where that does not help, other programs need the CPUs."""
        now = time.monotonic()
        if found & HELD_UP:
            waited, since = 1e-9 * int(self._words[layout.WAITED // 8]), now - self._held_up_at
            self._held_up_at = now
            if waited > _MOST_WAITED * since:
                again = now < self._rest_until + 4 * self._rest
                self._take_rest(now, min(_LONGEST_REST, 2 * self._rest) if again else _SHORTEST_REST)
        if found & ALONE:
            helped = self._helped_so_far()
            if helped != self._helped or now - self._moved_at > _MOVED_AGAIN:
                self._move_workers()
                self._helped, self._moved_at = helped, now
            elif now - self._moved_at > _SETTLED:
                self._take_rest(now, _SHORTEST_REST)

    def _take_rest(self, now: float, seconds: float) -> None:
        """Has calls run on one thread for a while."""
        self._rest, self._rest_until = seconds, now + seconds
        self._held_up_at = self._rest_until

    def _reports(self) -> Array:
        """Gives the report blocks of the workers that have started, (workers, words)."""
        reports = self._words[layout.REPORTS // 8 :].reshape(-1, layout.BLOCK // 8)
        return reports[1 : 1 + self._started]

    def _helped_so_far(self) -> int:
        """Gives the number of pieces that workers have done."""
        return int(self._reports()[:, 0].sum())

    def _move_workers(self) -> None:
        """Moves workers away from the caller's CPU; they may move on from there. This is a hint: a system that forbids it
        is not asked again."""
        here = system.current_cpu()
        if here is None or not self._moves:
            return
        try:
            for thread in self._reports()[:, layout.ID // 8].tolist():
                allowed = os.sched_getaffinity(thread) if thread else set()
                if allowed - {here}:
                    os.sched_setaffinity(thread, allowed - {here})
                    os.sched_setaffinity(thread, allowed)
        except OSError:
            self._moves = False


TEAM = Team()


class _CurrentTeam(threading.local):
    """The team that commands of this thread run with."""

    team = TEAM


current_team = _CurrentTeam()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TEAM.reset)
    os.register_at_fork(after_in_child=INTERRUPTS.reset)
