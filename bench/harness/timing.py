"""Timing one call, and what many samples say together. All times are in seconds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

WARM_UP_S = 0.02
MAX_REPEATS = 20_000
QUIET_POLL_S = 0.02
QUIET_SHARE = 0.1  # of one CPU: a pool that still spins uses a whole one


@dataclass(frozen=True)
class Sample:
    """Many calls, one after the other, of one implementation."""

    p50: float
    p99: float
    repeats: int
    cpus: float  # CPUs that the process kept busy meanwhile, spinning threads included
    others: float = 0.0  # CPUs that everything else on the machine kept busy meanwhile, warm-up and rest included
    # what one thread has right after calls (gpurnn only): flops a second of multiply-adds in registers, bytes a second of
    # reading its part of the weights
    flops: float | None = None
    reading: float | None = None


def time_calls(call: Callable[[], object], budget: float) -> Sample:
    """Warms up, then calls until `budget` seconds are spent: at least once after the warm-up."""
    enough = time.perf_counter() + min(WARM_UP_S, budget)
    call()
    while time.perf_counter() < enough:
        call()
    times: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        cpu_before, begin = time.process_time(), time.perf_counter()
        before, end = begin, begin + budget
        while not times or (before < end and len(times) < MAX_REPEATS):
            call()
            now = time.perf_counter()
            times.append(now - before)
            before = now
        wall, cpu = before - begin, time.process_time() - cpu_before
    finally:
        if collecting:
            gc.enable()
    p50, p99 = np.percentile(times, (50, 99))
    return Sample(float(p50), float(p99), len(times), cpu / wall)


def rest_until_quiet(limit: float = 1.0) -> float:
    """Sleeps until this process's threads have stopped spinning; gives the seconds waited."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < limit:
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(QUIET_POLL_S)
        if time.process_time() - cpu < QUIET_SHARE * (time.perf_counter() - wall):
            break
    return time.perf_counter() - begin


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median"""
    return (max(values) - min(values)) / median(values)
