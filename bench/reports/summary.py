"""Many rows in a few numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import geometric_mean, median

from bench.harness.cases import FLOAT32, OURS, Case, precision_of
from bench.harness.rows import Row, is_ours
from bench.limits.measure import Limits

SCALING = 1.8  # times as fast as one thread two should be


@dataclass(frozen=True)
class Ratios:
    """Best peer's time / ours, over some cells of the grid."""

    what: str
    count: int
    mean: float  # geometric
    least: float
    lost: int  # below 1.0
    clearly_lost: int  # below 0.95


def ours(rows: Iterable[Row]) -> list[Row]:
    """gpurnn's rows that have a peer beside them."""
    return [row for row in rows if row.implementation == OURS and row.ratio is not None]


def ours_in(rows: Iterable[Row]) -> list[str]:
    """gpurnn's variants among the rows, each once."""
    return list(dict.fromkeys(row.implementation for row in rows if is_ours(row.implementation)))


def in_float32(rows: Iterable[Row]) -> list[Row]:
    """The rows of what computes in float32."""
    return [row for row in rows if precision_of(row.implementation) == FLOAT32]


def ratios(what: str, values: Sequence[float]) -> Ratios:
    """`values` must not be empty."""
    lost = sum(value < 1.0 for value in values)
    return Ratios(what, len(values), geometric_mean(values), min(values), lost, sum(v < 0.95 for v in values))


def ratios_by_cell(rows: Iterable[Row], implementation: str = OURS) -> list[Ratios]:
    """One a cell, then all together where there are several."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.implementation == implementation and row.ratio is not None:
            groups[row.cell].append(row.ratio)
    found = [ratios(cell, values) for cell, values in groups.items()]
    if len(found) > 1:
        found.append(ratios("all", [value for values in groups.values() for value in values]))
    return found


def worst(rows: Iterable[Row], count: int = 8) -> list[Row]:
    """gpurnn's rows with the least ratios below 1, the least first."""
    return sorted((row for row in ours(rows) if (row.ratio or 0) < 1), key=lambda row: row.ratio or 0)[:count]


@dataclass(frozen=True)
class Reached:
    """A figure of gpurnn's over a region of the grid."""

    what: str
    count: int
    least: float
    middle: float  # median


def _reached(what: str, values: Sequence[float]) -> list[Reached]:
    return [Reached(what, len(values), min(values), median(values))] if values else []


def of_bound(rows: Iterable[Row]) -> list[Reached]:
    """Fraction of the bound, by cell: B >= 8 with I = H at H = 128 and from 256, and one row from H = 256. And the part of the
    time that the cell equations take, which are not in the bound; the part of what binds that the clock left, and what gpurnn
    makes of that part."""
    found = []
    mine = [row for row in rows if row.implementation == OURS and row.of_bound is not None and row.input == row.hidden]
    for cell in dict.fromkeys(row.cell for row in mine):
        regions = {
            "B >= 8, H = 128": [row for row in mine if row.batch >= 8 and row.hidden == 128],
            "B >= 8, H >= 256": [row for row in mine if row.batch >= 8 and row.hidden >= 256],
            "B = 1, H >= 256": [row for row in mine if row.batch == 1 and row.hidden >= 256],
        }
        for what, region in regions.items():
            here = [row for row in region if row.cell == cell]
            found += _reached(f"{cell}, {what}", [row.of_bound or 0 for row in here])
            found += _reached(f"{cell}, {what}: cell equations besides", [row.pointwise or 0 for row in here])
            found += _reached(f"{cell}, {what}: clock", [row.clock for row in here if row.clock])
            found += _reached(
                f"{cell}, {what}: over the clock", [(row.of_bound or 0) / row.clock for row in here if row.clock]
            )
    return found


def of_sgemm(rows: Iterable[Row], limits: Iterable[Limits]) -> list[Reached]:
    """GFLOP/s of gpurnn over those of the best SGEMM on as many threads, by cell, for B >= 8 and I = H from 128 on."""
    rates = {one.threads: one.sgemm_flops / 1e9 for one in limits}
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.implementation == OURS and row.input == row.hidden >= 128 and row.batch >= 8 and row.threads in rates:
            found[row.cell].append(row.gflops / rates[row.threads])
    return [one for cell, values in found.items() for one in _reached(f"{cell}, B >= 8, H >= 128", values)]


def scaling(rows: Iterable[Row]) -> list[tuple[Reached, int]]:
    """One thread's time / two threads', by cell, for B >= 8 and H >= 128; and how many of these are below SCALING."""
    times: dict[Case, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row.implementation == OURS and row.batch >= 8 and row.hidden >= 128:
            times[replace(row.case, threads=1)][row.threads] = row.ms
    gains: dict[str, list[float]] = defaultdict(list)
    for key, by_threads in times.items():
        if {1, 2} <= by_threads.keys():
            gains[key.cell].append(by_threads[1] / by_threads[2])
    return [
        (reached, sum(value < SCALING for value in values))
        for cell, values in gains.items()
        for reached in _reached(f"{cell}, 2 threads over 1", values)
    ]


def times_faster(rows: Sequence[Row], peer: str) -> list[tuple[Row, float]]:
    """gpurnn's rows, each with the ratio to one peer's time."""
    theirs = {row.case: row.ms for row in rows if row.implementation == peer}
    return [(r, theirs[r.case] / r.ms) for r in rows if r.implementation == OURS and r.case in theirs]
