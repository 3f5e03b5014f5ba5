"""The roofline of a case: no implementation that computes in float32 can be faster on this machine.

seconds = projection flops / FMA peak + max(recurrent flops / FMA peak, T * bytes of W_h / reading rate at that size)

The projection W_x x is one large product, bound by arithmetic. The recurrence must take W_h through the cores once a
step, whatever the batch, so with few rows it is bound by reading. Left out: x and y themselves, and the pointwise work, whose
time beside a bound is what gpurnn's cell equations take alone.

A single step has no other steps to share W_x with, so there both matrices are read:

seconds = max(flops / FMA peak, bytes of W_x and W_h / reading rate at that size)
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases import Case
from bench.limits import Limits


@dataclass(frozen=True)
class Bound:
    """Seconds for one call over the sequence."""

    seconds: float
    by: str  # what the recurrence (for a step: the step) waits for: "fma" or "weights"
    pointwise: float  # seconds for the cell equations, which are not in the bound
    thread_flops: float  # the FMA peak of one thread, that the bound takes


def _check(case: Case, limits: Limits) -> None:
    if limits.threads != case.threads:
        raise ValueError(f"limits of {limits.threads} thread(s) do not bound a case on {case.threads}")


def _pointwise(case: Case, steps: int, limits: Limits) -> float:
    return steps * case.batch * case.hidden * limits.unit_ns[case.cell] * 1e-9 / case.threads


def sequence_bound(case: Case, limits: Limits) -> Bound:
    """`limits` must be those of the case's thread count."""
    _check(case, limits)
    projection = case.projection_flops / limits.fma_flops
    arithmetic = case.recurrent_flops / limits.fma_flops
    reading = case.seq * case.recurrent_bytes / limits.bandwidth(case.recurrent_bytes)
    by = "fma" if arithmetic >= reading else "weights"
    return Bound(
        projection + max(arithmetic, reading), by, _pointwise(case, case.seq, limits), limits.fma_flops / limits.threads
    )


def step_bound(case: Case, limits: Limits) -> Bound:
    """Of one step; `limits` must be those of the case's thread count."""
    _check(case, limits)
    size = case.projection_bytes + case.recurrent_bytes
    arithmetic = case.flops / case.seq / limits.fma_flops
    reading = size / limits.bandwidth(size)
    by = "fma" if arithmetic >= reading else "weights"
    return Bound(max(arithmetic, reading), by, _pointwise(case, 1, limits), limits.fma_flops / limits.threads)
