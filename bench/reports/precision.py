"""Reduced precisions beside float32: how fast each is on each case, and how far its outputs are from float64's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import geometric_mean
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness.cases import FLOAT32, OURS, REDUCED, Case, precision_of
from bench.harness.errors import BenchError
from bench.harness.rows import Row, is_ours
from bench.reports.report import digits

NONE = "-"
Rows = dict[str, Row]  # of one case, by implementation


class Text(NamedTuple):
    """A table as text; a cell between two `**` is bold."""

    title: str
    heads: list[str]
    lines: list[list[str]]


def of_reduced(rows: Iterable[Row]) -> list[str]:
    """The implementations in a reduced precision, each once: gpurnn's, then the peers'."""
    found = dict.fromkeys(row.implementation for row in rows if precision_of(row.implementation) != FLOAT32)
    return sorted(found, key=lambda name: not is_ours(name))


def by_case(rows: Iterable[Row]) -> dict[Case, Rows]:
    """The rows of each case."""
    found: dict[Case, Rows] = {}
    for row in rows:
        found.setdefault(row.case, {})[row.implementation] = row
    return found


def over_float32(rows: Rows, name: str) -> float | None:
    """How many times as fast as gpurnn in float32 an implementation is."""
    return rows[OURS].ms / rows[name].ms if OURS in rows and name in rows else None


def over_best(rows: Rows, name: str) -> float | None:
    """How many times as fast as the best peer in a reduced precision gpurnn in one is."""
    return rows[name].ratio if name in rows else None


def over_same(rows: Rows, name: str) -> float | None:
    """How many times as fast as the best peer in its own precision gpurnn is."""
    precision = precision_of(name)
    peers = [row.ms for other, row in rows.items() if not is_ours(other) and precision_of(other) == precision]
    return min(peers) / rows[name].ms if peers and name in rows else None


def label(case: Case) -> str:
    """The case without its threads."""
    return str(replace(case, threads=0)).rpartition(",")[0]


def tables(rows: Sequence[Row]) -> list[Text]:
    """Times for each number of threads, then errors, on which threads have no say that counts."""
    cases = by_case(rows)
    counts = sorted({case.threads for case in cases})
    names = of_reduced(rows)
    found = [_times({case: one for case, one in cases.items() if case.threads == count}, names, count) for count in counts]
    return [*found, _errors({case: one for case, one in cases.items() if case.threads == counts[0]}, names)]


def _times(cases: dict[Case, Rows], names: Sequence[str], threads: int) -> Text:
    mine = [name for name in names if is_ours(name)]
    heads, ratios = ["ms", OURS, "its best peer", *names], []
    for name in mine:
        short = precision_of(name)
        heads += [f"{short} over float32", f"over best {short}", "over best peer"]
        ratios += [[of(one, name) for one in cases.values()] for of in (over_float32, over_same, over_best)]
    lines = []
    for number, (case, one) in enumerate(cases.items()):
        best = {one[name].best_peer for name in mine if name in one}
        line = [label(case), _ms(one, OURS), _best_in_float32(one), *(_ms(one, name, name in best) for name in names)]
        lines.append(line + [_times_as_fast(column[number]) for column in ratios])
    means = [geometric_mean(known) if (known := [one for one in column if one]) else None for column in ratios]
    lines.append(["geometric mean", *[""] * (2 + len(names)), *map(_times_as_fast, means)])
    return Text(f"{threads} thread{'s' if threads > 1 else ''}: milliseconds, the best peer in bold", heads, lines)


def _errors(cases: dict[Case, Rows], names: Sequence[str]) -> Text:
    shown = [OURS, *names]
    lines = [[label(case), *(_error(one, name) for name in shown)] for case, one in cases.items()]
    return Text("rms errors of the outputs against float64", ["rms error", *shown], lines)


def _ms(rows: Rows, name: str, bold: bool = False) -> str:
    if name not in rows:
        return NONE
    text = digits(rows[name].ms)
    text = f"({text})" if rows[name].disturbed else text
    return f"**{text}**" if bold else text


def _best_in_float32(rows: Rows) -> str:
    best = rows[OURS].best_peer if OURS in rows else None
    return f"{_ms(rows, best)} {best}" if best else NONE


def _times_as_fast(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _error(rows: Rows, name: str) -> str:
    off = rows[name].rms if name in rows else None
    return NONE if off is None else f"{off:.1e}"


def markdown(rows: Sequence[Row], machine: str) -> str:
    """The tables in Markdown."""
    if not of_reduced(rows):
        raise BenchError(f"no row in a reduced precision: `infer --precision {' '.join(REDUCED)}` makes them")
    parts = [f"{machine}.\n"]
    for table in tables(rows):
        lines = [table.heads, ["---", *["---:"] * (len(table.heads) - 1)], *table.lines]
        parts.append(f"{table.title[0].upper()}{table.title[1:]}:\n\n" + "".join(f"| {' | '.join(one)} |\n" for one in lines))
    if any(row.disturbed for row in rows):
        parts.append("In parentheses: others used CPUs that it needed; measure again on a quiet machine.\n")
    return "\n".join(parts)


def show(console: Console, rows: Sequence[Row]) -> None:
    """The tables on the terminal, where there is a reduced precision."""
    for text in tables(rows) if of_reduced(rows) else ():
        table = Table(title=text.title, title_justify="left", header_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0))
        for place, head in enumerate(text.heads):
            table.add_column(head.replace("-", "-\n"), justify="right" if place else "left", no_wrap=place in (0, 2))
        for line in text.lines:
            table.add_row(*(f"[bold]{cell.strip('*')}[/bold]" if cell.startswith("**") else cell for cell in line))
        console.print(table)
