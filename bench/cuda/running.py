"""One implementation made ready for one case, and how it is timed: by events on its own stream, on inputs in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from bench.harness.data import F32

INPUTS = 4  # in turn, so that no call finds its input in a cache
WARM_UP = 3
MOST_CALLS = 200


@dataclass(frozen=True)
class Running:
    call: Callable[[int], Any]  # enqueues the work on the k-th input, -> y on the device
    to_numpy: Callable[[Any], F32]
    event: Callable[[], Any]  # recorded now
    milliseconds: Callable[[Any, Any], float]  # between two events that have passed
    wait: Callable[[], None]  # until all work is done
    plan: str = ""  # what it says that it runs
    launches: Callable[[], int] | None = None  # of one call


@dataclass(frozen=True)
class Times:
    """The times of one call, in milliseconds."""

    ms: float  # median between events: what the GPU takes, or the host where that is slower
    ms_low: float
    ms_high: float
    host_ms: float  # median until the call returns
    calls: int


def time_calls(running: Running, budget: float) -> Times:
    """Calls until `budget` seconds are spent, without waiting in between."""
    for k in range(WARM_UP):
        running.call(k % INPUTS)
    running.wait()
    events: list[tuple[Any, Any]] = []
    host: list[float] = []
    end = time.perf_counter() + budget
    while not events or (time.perf_counter() < end and len(events) < MOST_CALLS):
        k = len(events) % INPUTS
        before, begin = running.event(), time.perf_counter()
        running.call(k)
        host.append(1e3 * (time.perf_counter() - begin))
        events.append((before, running.event()))
    running.wait()
    times = [running.milliseconds(*pair) for pair in events]
    low, high = np.percentile(times, (5, 95))
    return Times(median(times), float(low), float(high), median(host), len(times))
