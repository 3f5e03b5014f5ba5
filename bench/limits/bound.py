"""The roofline of a case: no implementation that computes in float32 can be faster on this machine.

seconds = projection flops / FMA peak + max(recurrent flops / FMA peak, T * bytes of W_h / reading rate at that size)

The projection W_x x is one large product, bound by arithmetic. The recurrence must take W_h through the cores once a
step, whatever the batch, so with few rows it is bound by reading. Left out: x and y themselves, and the pointwise work, whose
time beside a bound is what gpurnn's cell equations take alone.

A single step has no other steps to share W_x with, so there both matrices are read:

seconds = max(flops / FMA peak, bytes of W_x and W_h / reading rate at that size)

The bound of several layers is the sum of theirs; both directions of a layer count as one W_h.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.harness.cases import Case
from bench.limits.measure import Limits


@dataclass(frozen=True)
class Bound:
    """Seconds for one call over the sequence."""

    seconds: float
    by: str  # what the recurrence (for a step: the step) waits for: "fma" or "weights"
    pointwise: float  # seconds for the cell equations, which are not in the bound
    thread_limit: float  # of one thread: flops a second or, where weights bind, bytes a second


def sequence_bound(case: Case, limits: Limits) -> Bound:
    """`limits` must be those of the case's thread count."""
    projection = case.projection_flops / limits.fma_flops
    steps = case.layers * case.seq
    return _bound(case, limits, steps, projection, case.recurrent_flops, case.recurrent_bytes)


def step_bound(case: Case, limits: Limits) -> Bound:
    """The roofline's time of one step; `limits` must be those of the case's thread count."""
    return _bound(case, limits, 1, 0.0, case.flops / case.seq, case.stream_bytes)


def _bound(case: Case, limits: Limits, steps: int, before: float, flops: float, size: int) -> Bound:
    """`before`: seconds before the steps; `flops`: of all steps; `size`: bytes that each of them reads."""
    if limits.threads != case.threads:
        raise ValueError(f"limits of {limits.threads} thread(s) do not bound a case on {case.threads}")
    rate = limits.bandwidth(size)
    arithmetic, reading = flops / limits.fma_flops, steps * size / rate
    pointwise = case.units * limits.unit_ns[case.cell] * 1e-9 / case.threads
    if arithmetic >= reading:
        return Bound(before + arithmetic, "fma", pointwise, limits.fma_flops / limits.threads)
    return Bound(before + reading, "weights", pointwise, rate / limits.threads)
