"""The clock that a core has left right after calls: a processor that must keep to a power or a current slows down under
multiply-adds and traffic between caches, and takes milliseconds to come back, so that multiply-adds in registers tell.

The roofline takes the peak of a quiet core; this says how much of it the machine granted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from bench.limits import ALIGN, aligned
from bench.machine_code import Loops

CALLS_S = 0.005  # before each measurement
MEASURED_S = 5e-5
TURNS = 5  # at most
TURNS_S = 0.1  # after which no turn begins
AFTER = 3  # measurements in a turn; the best counts, as interrupts take microseconds


class Clock:
    """Measures on the calling thread."""

    def __init__(self) -> None:
        self._loops = Loops()
        self._memory, self._at = aligned(ALIGN)
        self._rounds = 1
        while self._seconds(self._rounds) < MEASURED_S:
            self._rounds *= 2

    def _seconds(self, rounds: int) -> float:
        begin = time.perf_counter()
        self._loops.fma(self._at, rounds)
        return time.perf_counter() - begin

    def flops(self, call: Callable[[], object]) -> float:
        """Flops a second of this thread's multiply-adds in registers right after calls."""
        found: list[float] = []
        end = time.perf_counter() + TURNS_S
        while not found or (len(found) < TURNS and time.perf_counter() < end):
            enough = time.perf_counter() + CALLS_S
            call()
            while time.perf_counter() < enough:
                call()
            # the loop's own code is out of the caches
            self._seconds(1)
            found.append(min(self._seconds(self._rounds) for _ in range(AFTER)))
        return self._rounds * self._loops.round_flops / median(found)
