"""Threads that run works: the calling thread and a team of real Python threads kept alive inside one nogil loop.

A worker waits for the next command by spinning for about 250 us and then parks in read(2) on a pipe, without the GIL; the
caller publishes a command, wakes who is parked, runs its own works and waits for the others. Works never allocate, never
call Python and never take a lock.

One caller at a time has the team. Who finds it taken runs alone, on its own thread: the results are the same bits.

Memory of a team, in lines of 64 bytes that one thread writes (words in brackets):
    0             [command number, address of works, address of the table of first works, a byte to write, -, patience]
    1 + p         [commands done, parked, pipe to read, pipe to write, read buffer, -, CPU it last ran on] of thread p
"""

import atexit
import ctypes
import math
import os
import threading
import time

import numpy as np

from ..spec import Array
from .barrier import LINE, SPINS, YIELD_ADDRESS, wait_for
from .compile import entry
from .inline import called
from .job import WORK
from .memory import (
    call0,
    call_io,
    call_words,
    flush_denormals,
    load_acquire,
    load_ordered,
    load_word,
    pause,
    restore_denormals,
    store_ordered,
    store_release,
    store_word,
)

LOOKS_BEFORE_PARKING = 10_000  # 25 ns each: longer than Python takes between two commands of a training step
_LASTED = 0.02  # seconds that threads should stay on CPUs of their own
_LONGEST_REST = 0.5  # seconds that a team whose threads do not is left alone
WORK_BYTES = WORK.itemsize
_JOB_AT, _KERNEL_AT = WORK.fields["job"][1], WORK.fields["kernel"][1]  # type: ignore[index]

_libc = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)


def _address_of(name: str) -> int:
    """A C function's address; 0 where there is none (sched_getcpu is Linux's)."""
    try:
        return ctypes.cast(getattr(_libc, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


_READ, _WRITE = (_address_of(name) for name in (("_read", "_write") if os.name == "nt" else ("read", "write")))
_GETCPU = _address_of("sched_getcpu")


@called
def run_works(works, first, last):  # type: ignore[no-untyped-def]
    """Runs a stretch of a table of works, with denormals flushed to zero."""
    before = flush_denormals()
    for index in range(first, last):
        work = works + index * WORK_BYTES
        call_words(load_word(work + _KERNEL_AT), (load_word(work + _JOB_AT), work))
    restore_denormals(before)


@entry("void(int64, int64)")
def run_alone(works, count):  # type: ignore[no-untyped-def]
    run_works(works, 0, count)


@entry("void(int64, int64, int64, int64, int64)")
def _serve(team, p, read, yield_address, getcpu):  # type: ignore[no-untyped-def]
    """A worker's life, until a command without works."""
    mine = team + LINE * (1 + p)
    seen = load_word(mine)
    while True:
        looks = 0
        while load_acquire(team) == seen:
            looks += 1
            if looks < LOOKS_BEFORE_PARKING:
                if looks < SPINS or looks % 16:
                    pause()
                else:
                    call0(yield_address)
            else:
                store_ordered(mine + 8, 1)
                if load_ordered(team) == seen:
                    call_io(read, load_word(mine + 16), mine + 32)
                store_ordered(mine + 8, 0)
                looks = 0
        seen = load_acquire(team)
        works = load_word(team + 8)
        if works == 0:
            store_release(mine, seen)
            return
        starts = load_word(team + 16)
        run_works(works, load_word(starts + 8 * p), load_word(starts + 8 * p + 8))
        if getcpu:
            store_word(mine + 48, call0(getcpu))
        store_release(mine, seen)


@called
def command(team, members, works, starts, write, yield_address, getcpu):  # type: ignore[no-untyped-def]
    """As thread 0: publish, wake, run the own works, wait for all. -> whether two threads ended on one CPU."""
    number = load_word(team) + 1
    store_word(team + 8, works)
    store_word(team + 16, starts)
    store_ordered(team, number)
    for p in range(1, members):
        other = team + LINE * (1 + p)
        if load_ordered(other + 8) == 1:
            call_io(write, load_word(other + 24), team + 24)
    if works:
        run_works(works, load_word(starts), load_word(starts + 8))
        if getcpu:
            store_word(team + LINE + 48, call0(getcpu))
    for p in range(1, members):
        wait_for(team + LINE * (1 + p), number, team + 40, yield_address)
    crowded = 0
    for p in range(members):
        for q in range(p):
            if load_word(team + LINE * (1 + p) + 48) == load_word(team + LINE * (1 + q) + 48):
                crowded = 1
    return crowded


@entry("int64(int64, int64, int64, int64, int64, int64, int64)")
def _command(team, members, works, starts, write, yield_address, getcpu):  # type: ignore[no-untyped-def]
    return command(team, members, works, starts, write, yield_address, getcpu)


class Team:
    """`size` threads: the caller of `run` and size - 1 workers."""

    def __init__(self, size: int) -> None:
        self.size = size
        memory = np.zeros((1 + size + 1) * (LINE // 8), np.int64)
        start = -memory.ctypes.data % LINE // 8
        self._words = memory[start : start + (1 + size) * (LINE // 8)].reshape(1 + size, LINE // 8)
        self._address = self._words.ctypes.data
        self._words[0, 3] = 1
        self._words[0, 5] = SPINS
        self._words[1:, 6] = -1 - np.arange(size)
        self._threads = [threading.Thread(target=self._work, args=(p,), daemon=True) for p in range(1, size)]
        self._pipes: list[int] = []
        for p, thread in enumerate(self._threads, 1):
            read, write = os.pipe()
            self._words[1 + p, 2:4] = read, write
            self._pipes += [read, write]
            thread.start()
        self.handle = (self._address, size, _WRITE, YIELD_ADDRESS, _GETCPU)  # what `command` needs to know

    def _work(self, p: int) -> None:
        _serve(self._address, p, _READ, YIELD_ADDRESS, _GETCPU)

    def run(self, works: int, starts: int) -> int:
        """Runs the table of works at an address: thread p those from starts[p] to starts[p + 1]; -> as `command`."""
        return int(_command(self._address, self.size, works, starts, _WRITE, YIELD_ADDRESS, _GETCPU))

    def spread(self) -> None:
        """Moves workers that share a CPU to CPUs that no other thread of the team was on; they may move on from there."""
        taken = {int(self._words[1, 6])}
        for p, thread in enumerate(self._threads, 1):
            cpu = int(self._words[1 + p, 6])
            if cpu in taken and thread.native_id is not None:
                allowed = os.sched_getaffinity(thread.native_id)
                others = allowed - taken
                if others:
                    os.sched_setaffinity(thread.native_id, others)
                    os.sched_setaffinity(thread.native_id, allowed)
                    cpu = min(others)
            taken.add(cpu)

    def close(self) -> None:
        """Ends the workers."""
        _command(self._address, self.size, 0, 0, _WRITE, YIELD_ADDRESS, _GETCPU)
        for thread in self._threads:
            thread.join()
        for pipe in self._pipes:
            os.close(pipe)


class _Teams:
    """The process's team: made at first use, replaced when another size is wanted, forgotten by a forked child."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._team: Team | None = None
        self._spread_at = -math.inf
        self._rest = 0.0
        self._rest_until = 0.0

    def rested(self) -> bool:
        """Whether threads of the team may be expected to have CPUs of their own."""
        return self._rest_until == 0.0 or time.monotonic() >= self._rest_until

    def crowded(self) -> None:
        """Two threads ended a command on one CPU, with the lock held. Linux may keep them there, on an idle machine too:
        then it helps to move them apart. Where that does not last, another process needs the CPUs, and for a while, longer
        each time, calls are better off on one thread."""
        now = time.monotonic()
        if now - self._spread_at > _LASTED:
            self._rest = 0.0
            if self._team is not None:
                self._team.spread()
        else:
            self._rest = min(_LONGEST_REST, 2 * self._rest or _LASTED)
            self._rest_until = now + self._rest
        self._spread_at = now

    def of(self, size: int) -> Team:
        """With the lock held."""
        if self._team is None or self._team.size != size:
            self.close()
            self._team = Team(size)
        return self._team

    def run(self, size: int, works: Array, starts: Array) -> None:
        """Runs a table of works on `size` threads, with the lock held where they are more than the calling one: thread p those
        from starts[p] to starts[p + 1]."""
        if size == 1:
            run_alone(works.ctypes.data, len(works))
        elif self.of(size).run(works.ctypes.data, starts.ctypes.data):
            self.crowded()

    def close(self) -> None:
        if self._team is not None:
            self._team.close()
        self._team = None

    def forget(self) -> None:
        """In a forked child, where the workers are not."""
        self.lock = threading.Lock()
        self._team = None


TEAMS = _Teams()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TEAMS.forget)


@atexit.register
def _close() -> None:
    with TEAMS.lock:
        TEAMS.close()


def default_threads() -> int:
    """GPURNN_NUM_THREADS, or the number of CPUs that this process may use."""
    value = os.environ.get("GPURNN_NUM_THREADS")
    if value is not None:
        if not value.strip().isdecimal() or int(value) < 1:
            raise ValueError(f"GPURNN_NUM_THREADS: expected an integer >= 1, got {value!r}")
        return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Setting:
    """How many threads calls may use."""

    count: int | None = None


def get_num_threads() -> int:
    if _Setting.count is None:
        _Setting.count = default_threads()
    return _Setting.count


def set_num_threads(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
        raise TypeError(f"number of threads: expected an integer, got {type(count).__name__}")
    if count < 1:
        raise ValueError(f"number of threads: expected at least 1, got {count}")
    _Setting.count = int(count)


class Threads:
    """How many threads a call has, inside: all, or its own when another call has the team."""

    def __enter__(self) -> int:
        wanted = get_num_threads()
        self._together = wanted > 1 and TEAMS.rested() and TEAMS.lock.acquire(blocking=False)
        return wanted if self._together else 1

    def __exit__(self, *_: object) -> None:
        if self._together:
            TEAMS.lock.release()
