"""One row: one implementation on one case, as it stands in the JSON file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from statistics import median

from bench.harness.cases import BASELINE, FLOAT32, OURS, Case, precision_of
from bench.harness.contest import Taken
from bench.harness.machine import disturbed
from bench.harness.timing import spread
from bench.limits.bound import Bound


@dataclass(frozen=True)
class Row:
    """Times are in milliseconds a call; a ratio above 1 means faster than the best peer."""

    implementation: str
    cell: str
    hidden: int
    batch: int
    seq: int
    input: int
    threads: int
    ms: float  # median over the rounds of each round's median
    ms_low: float  # fastest round
    ms_high: float  # slowest round
    spread: float  # (slowest - fastest) / median
    p99_ms: float  # median over the rounds of each round's 99th percentile
    gflops: float  # of the matrix products alone
    bound_ms: float | None  # roofline of the case
    bound_by: str | None  # what the recurrence waits for at the roofline: "fma" or "weights"
    of_bound: float | None  # bound_ms / ms
    pointwise: float | None  # the cell equations' part of ms, by what they take alone (gpurnn only)
    clock: float | None  # part of what binds, FMA peak or reading rate, that a thread has right after calls (gpurnn only)
    best_peer: str | None
    ratio: float | None  # best peer's ms / ms
    ratio_low: float | None  # the least of the rounds' own ratios
    ratio_high: float | None
    cpus: float  # CPUs kept busy, spinning threads included
    others: float  # CPUs that the rest of the machine kept busy meanwhile
    # below: what older files do not have
    layers: int = 1
    directions: int = 1
    in_turn: bool = False
    ragged: bool = False
    stream: bool = False
    model: str = ""
    rms: float | None = None  # error of the outputs against float64

    @property
    def case(self) -> Case:
        """The case that was measured."""
        return Case(**{field.name: getattr(self, field.name) for field in fields(Case)})

    @property
    def disturbed(self) -> bool:
        """Others took CPUs that the case needed."""
        return disturbed(self.others, self.threads)

    @property
    def rest_ns(self) -> float | None:
        """Thread-nanoseconds above the bound, for each unit, row and step: where the pointwise work shows."""
        if self.bound_ms is None:
            return None
        return (self.ms - self.bound_ms) * 1e6 * self.threads / self.case.units


def is_ours(implementation: str) -> bool:
    """gpurnn in any of its variants."""
    return implementation.startswith(OURS)


def rivals(name: str, names: Iterable[str]) -> list[str]:
    """The peers that an implementation is compared with: those in float32, or in any reduced precision if it has one."""
    reduced = precision_of(name) != FLOAT32
    return [one for one in names if not is_ours(one) and one != BASELINE and (precision_of(one) != FLOAT32) == reduced]


def rows_of(case: Case, taken: dict[str, Taken], flops: float, roof: Bound | None) -> list[Row]:
    """One row an implementation, with the ratios among them; `taken` holds as many samples for each. The roofline is of
    float32."""
    medians = {name: median(sample.p50 for sample in one.samples) for name, one in taken.items()}
    rows = []
    for name, one in taken.items():
        samples = one.samples
        times = [sample.p50 for sample in samples]
        bound = roof if precision_of(name) == FLOAT32 else None
        left = [sample.flops if bound and bound.by == "fma" else sample.reading for sample in samples]
        clocks = [rate for rate in left if rate is not None]
        seconds = medians[name]
        peers = rivals(name, taken)
        best = min(peers, key=lambda peer: medians[peer], default=None)
        ratios = [min(taken[p].samples[k].p50 for p in peers) / times[k] for k in range(len(times))] if best else []
        rows.append(
            Row(
                implementation=name,
                **vars(case),
                ms=seconds * 1e3,
                ms_low=min(times) * 1e3,
                ms_high=max(times) * 1e3,
                spread=spread(times),
                p99_ms=median(sample.p99 for sample in samples) * 1e3,
                gflops=flops / seconds / 1e9,
                bound_ms=bound.seconds * 1e3 if bound else None,
                bound_by=bound.by if bound else None,
                of_bound=bound.seconds / seconds if bound else None,
                pointwise=bound.pointwise / seconds if bound and is_ours(name) else None,
                clock=median(clocks) / bound.thread_limit if bound and clocks else None,
                best_peer=best,
                ratio=medians[best] / seconds if best else None,
                ratio_low=min(ratios, default=None),
                ratio_high=max(ratios, default=None),
                cpus=median(sample.cpus for sample in samples),
                others=median(sample.others for sample in samples),
                rms=one.rms,
            )
        )
    return rows
