"""The part of its limits that a core still has right after calls.

A processor that must keep to a power or a current slows down under multiply-adds and traffic between caches, and takes
milliseconds to come back; neighbours take part of what caches and memory can give. Multiply-adds in registers, and reading,
show both. The roofline takes the best that was seen of a quiet machine; this says how much of it the machine granted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from bench.limits.machine_code import Loops
from bench.limits.measure import ALIGN, aligned

CALLS_S = 0.005  # before each measurement
MEASURED_S = 5e-5
TURNS = 5  # at most
TURNS_S = 0.1  # after which no turn begins
AFTER = 3  # measurements in a turn; the best counts, as interrupts take microseconds


class Clock:
    """Measures on the calling thread."""

    def __init__(self) -> None:
        self._loops = Loops()
        self._sums, self._at = aligned(ALIGN)

    def flops(self, call: Callable[[], object]) -> float:
        """Flops a second of this thread's multiply-adds in registers right after calls."""
        # the loop's own code is out of the caches
        rate = _after(call, lambda rounds: self._loops.fma(self._at, rounds), 1)
        return rate * self._loops.round_flops

    def bytes(self, call: Callable[[], object], size: int) -> float:
        """Bytes a second of this thread's reading of `size` bytes, back and forth, right after calls."""
        once = max(1, size // self._loops.round_bytes)
        size = once * self._loops.round_bytes
        _memory, at = aligned(size)
        # the caches hold what the calls have read
        rate = _after(call, lambda rounds: self._loops.read(self._at, at, size, rounds), 2 * once)
        return rate * self._loops.round_bytes


def _after(call: Callable[[], object], run: Callable[[int], None], before: int) -> float:
    """Rounds of `run` a second, right after calls and as many rounds as `before`."""
    rounds = before
    while _seconds(run, rounds) < MEASURED_S:
        rounds *= 2
    found: list[float] = []
    end = time.perf_counter() + TURNS_S
    while not found or (len(found) < TURNS and time.perf_counter() < end):
        enough = time.perf_counter() + CALLS_S
        call()
        while time.perf_counter() < enough:
            call()
        run(before)
        found.append(min(_seconds(run, rounds) for _ in range(AFTER)))
    return rounds / median(found)


def _seconds(run: Callable[[int], None], rounds: int) -> float:
    begin = time.perf_counter()
    run(rounds)
    return time.perf_counter() - begin
