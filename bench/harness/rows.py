"""One row: one implementation on one case, as it stands in the JSON file."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from bench.harness.cases import BASELINE, OURS, Case
from bench.harness.machine import disturbed
from bench.harness.timing import Sample, spread
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

    @property
    def case(self) -> Case:
        """The case that was measured."""
        return Case(self.cell, self.hidden, self.batch, self.seq, self.input, self.threads)

    @property
    def disturbed(self) -> bool:
        """Others took CPUs that the case needed."""
        return disturbed(self.others, self.threads)

    @property
    def rest_ns(self) -> float | None:
        """Thread-nanoseconds above the bound, for each unit, row and step: where the pointwise work shows."""
        if self.bound_ms is None:
            return None
        return (self.ms - self.bound_ms) * 1e6 * self.threads / (self.seq * self.batch * self.hidden)


def is_ours(implementation: str) -> bool:
    """gpurnn in any of its variants."""
    return implementation.startswith(OURS)


def rows_of(case: Case, rounds: dict[str, list[Sample]], flops: float, roof: Bound | None) -> list[Row]:
    """One row an implementation, with the ratios among them; `rounds` holds as many samples for each."""
    medians = {name: median(sample.p50 for sample in samples) for name, samples in rounds.items()}
    peers = [name for name in rounds if not is_ours(name) and name != BASELINE]
    best = min(peers, key=lambda name: medians[name], default=None)
    rows = []
    for name, samples in rounds.items():
        times = [sample.p50 for sample in samples]
        left = [sample.flops if roof and roof.by == "fma" else sample.reading for sample in samples]
        clocks = [rate for rate in left if rate is not None]
        seconds = medians[name]
        ratios = [min(rounds[p][k].p50 for p in peers) / times[k] for k in range(len(times))] if best else []
        rows.append(
            Row(
                implementation=name,
                cell=case.cell,
                hidden=case.hidden,
                batch=case.batch,
                seq=case.seq,
                input=case.input,
                threads=case.threads,
                ms=seconds * 1e3,
                ms_low=min(times) * 1e3,
                ms_high=max(times) * 1e3,
                spread=spread(times),
                p99_ms=median(sample.p99 for sample in samples) * 1e3,
                gflops=flops / seconds / 1e9,
                bound_ms=roof.seconds * 1e3 if roof else None,
                bound_by=roof.by if roof else None,
                of_bound=roof.seconds / seconds if roof else None,
                pointwise=roof.pointwise / seconds if roof and is_ours(name) else None,
                clock=median(clocks) / roof.thread_limit if roof and clocks else None,
                best_peer=best,
                ratio=medians[best] / seconds if best else None,
                ratio_low=min(ratios, default=None),
                ratio_high=max(ratios, default=None),
                cpus=median(sample.cpus for sample in samples),
                others=median(sample.others for sample in samples),
            )
        )
    return rows
