"""Runs a list of cases: limits first, then case by case; keeps the file up to date."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path

from rich.console import Console

from bench.harness.cases import Case
from bench.harness.contest import Entry, Settings, Taken, contest
from bench.harness.errors import BenchError
from bench.harness.machine import describe, mixed_halves
from bench.harness.rows import Row, rows_of
from bench.harness.team import Team, measure_limits
from bench.limits.bound import Bound
from bench.limits.measure import Limits, best_of
from bench.reports.report import case_line

COLUMNS = tuple(column.name for column in fields(Row))


def _rounded(value: object) -> object:
    """Numbers with the digits that a measurement can have."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclass
class Report:
    """The findings of a run, as they are written to the JSON file."""

    bench: str
    grid: str
    settings: Settings
    machine: dict[str, object] = field(default_factory=describe)
    limits: list[Limits] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """All of it, at once. The rows are a table, a line each: a full grid has thousands."""
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {name: value for name, value in asdict(self).items() if name != "rows"} | {"columns": COLUMNS}
        lines = (json.dumps([_rounded(value) for value in astuple(row)]) for row in self.rows)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "rows": [\n' + ",\n".join(lines) + "\n ]\n}\n")
        part.replace(path)


@dataclass(frozen=True)
class Measure:
    """The differences between the benches that compare implementations."""

    entries: Sequence[Entry]
    flops: Callable[[Case], float]
    bound: Callable[[Case, Limits], Bound] | None  # the roofline; None where there is none


def read_rows(path: Path) -> tuple[list[Row], str]:
    """The rows of a report's file, and the machine in one line."""
    try:
        report = json.loads(path.read_text())
        rows = [Row(**dict(zip(report["columns"], row, strict=True))) for row in report["rows"]]
        machine = report["machine"]
        return rows, f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['date'].split()[0]}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} holds no rows of this bench ({error})") from None


def compare(report: Report, cases: Sequence[Case], measure: Measure, path: Path, console: Console) -> None:
    """Fills the report; the file at `path` is written again after every case."""
    warning = mixed_halves()
    if warning:
        console.print(f"[red]{warning}[/red]")

    def fail(text: str) -> None:
        report.errors.append(text)
        console.print(f"[red]error: {text}[/red]")

    def rows_with(limits: Limits, case: Case, taken: dict[str, Taken]) -> list[Row]:
        roof = measure.bound(case, limits) if measure.bound else None
        return rows_of(case, taken, measure.flops(case), roof)

    names = list(dict.fromkeys(entry.name for entry in measure.entries))
    counts = sorted({case.threads for case in cases})
    limits = {threads: measure_limits(threads) for threads in counts}
    report.limits = list(limits.values())
    finished: list[tuple[Case, dict[str, Taken]]] = []
    with ExitStack() as stack:
        teams = {threads: stack.enter_context(Team(names, threads, fail)) for threads in counts}
        for team in teams.values():
            report.missing.update(team.missing)
            report.versions.update(team.versions)
        for reason in report.missing.values():
            console.print(f"left out: {reason}")
        if not any(team.names for team in teams.values()):
            fail("none of the implementations can be measured")
            return
        for done, case in enumerate(cases, 1):
            taken = contest(case, measure.entries, teams[case.threads], report.settings, fail)
            finished.append((case, taken))
            rows = rows_with(limits[case.threads], case, taken)
            report.rows.extend(rows)
            report.write(path)
            console.print(case_line(f"{done}/{len(cases)}", case, rows), highlight=False)
    # what disturbed the limits at the beginning may have gone by the end
    limits = {threads: best_of(before, measure_limits(threads)) for threads, before in limits.items()}
    report.limits = list(limits.values())
    report.rows = [row for case, taken in finished for row in rows_with(limits[case.threads], case, taken)]
    report.write(path)
