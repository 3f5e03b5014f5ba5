"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness.cases import OURS, Case
from bench.harness.machine import disturbed
from bench.harness.rows import Row
from bench.limits.measure import Limits
from bench.reports import summary

MARK = "*"


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    colour = "green" if value >= 1 else "yellow" if value >= 0.95 else "red"
    return f"[{colour}]{value:.2f}[/{colour}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def case_line(place: str, case: Case, rows: Sequence[Row]) -> str:
    """One line while the run goes on."""
    times = "  ".join(f"{row.implementation} {row.ms:.3f}" for row in rows) or "nothing to show"
    ratio = next((row.ratio for row in rows if row.implementation == OURS), None)
    return f"{place} {case}: {times} ms" + (f"  ratio {_ratio(ratio)}" if ratio is not None else "")


def _time(row: Row, micro: bool, p99: bool) -> str:
    unit = 1e3 if micro else 1.0
    text = digits(row.ms * unit)
    if p99:
        text += f" / {digits(row.p99_ms * unit)}"
    else:
        text += f" ±{50 * row.spread:.0f}%" if row.spread < 2 else " ±>99%"
    return text + (MARK if row.disturbed else "")


def print_rows(console: Console, title: str, rows: Sequence[Row], *, micro: bool = False, p99: bool = False) -> None:
    """One line a case, one column an implementation; the figures that follow are gpurnn's, else the best peer's."""
    names = list(dict.fromkeys(row.implementation for row in rows))
    bounded = any(row.bound_ms is not None for row in rows)
    what = ("µs" if micro else "ms") + (", p50 / p99" if p99 else ", median ± half the rounds' range")
    table = Table(title=f"{title}: {what}", title_justify="left", header_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0))
    named = any(row.model for row in rows)
    columns = ("model", "B", "T", "thr") if named else ("cell", "H", "I", "B", "T", "thr")
    for head in columns:
        table.add_column(head, justify="left" if head in ("cell", "model") else "right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", style="bold" if name == OURS else None, no_wrap=True)
    for head in (
        "GFLOP/s",
        *(("of bound", "by", "clock", "cells", "rest ns") if bounded else ()),
        "best peer",
        "ratio",
        "rounds",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for case, group in groupby(rows, key=lambda row: row.case):
        found = {row.implementation: row for row in group}
        lead = found.get(OURS) or min(found.values(), key=lambda row: row.ms)
        layers = [case.model] if named else [case.cell, str(case.hidden), str(case.input)]
        line = layers + [str(value) for value in (case.batch, case.seq, case.threads)]
        line += [_time(found[name], micro, p99) if name in found else "-" for name in names]
        line.append(f"{lead.gflops:.1f}")
        if bounded:
            rest = lead.rest_ns
            line += [_share(lead.of_bound), lead.bound_by or "-", _share(lead.clock), _share(lead.pointwise)]
            line.append("-" if rest is None else f"{rest:.2f}")
        line += [lead.best_peer or "-", _ratio(found[OURS].ratio if OURS in found else None)]
        low, high = lead.ratio_low, lead.ratio_high
        line.append(f"{low:.2f}..{high:.2f}" if OURS in found and low is not None and high is not None else "-")
        table.add_row(*line)
    console.print(table)
    if any(row.disturbed for row in rows):
        console.print(f"{MARK} disturbed: others used CPUs that it needed; measure again on a quiet machine")


def print_summary(console: Console, rows: Sequence[Row], implementations: Sequence[str] = (OURS,)) -> None:
    """Ratios by cell, lost cells, and how near the bound gpurnn comes."""
    for name in implementations:
        for found in summary.ratios_by_cell(rows, name):
            console.print(
                f"{name}, {found.what}: geometric mean of ratios {found.mean:.2f} over {found.count} cells, least "
                f"{found.least:.2f}; below 1.00: {found.lost}, below 0.95: {found.clearly_lost}",
                highlight=False,
            )
    for row in summary.worst(rows):
        console.print(f"lost: {row.case}: {_ratio(row.ratio)} against {row.best_peer}", highlight=False)
    for reached in summary.of_bound(rows):
        text = f"of bound, {reached.what}: least {reached.least:.0%}, median {reached.middle:.0%} ({reached.count} cells)"
        console.print(text, highlight=False)
    for reached, below in summary.scaling(rows):
        text = f"{reached.what}: least {reached.least:.2f}, median {reached.middle:.2f} ({reached.count} cells"
        console.print(f"{text}, {below} below {summary.SCALING})", highlight=False)


def print_of_sgemm(console: Console, rows: Sequence[Row], limits: Sequence[Limits]) -> None:
    """How near gpurnn comes to the best product of two matrices."""
    for reached in summary.of_sgemm(rows, limits):
        text = f"of SGEMM, {reached.what}: least {reached.least:.0%}, median {reached.middle:.0%} ({reached.count} cells)"
        console.print(text, highlight=False)


def print_limits(console: Console, limits: Sequence[Limits]) -> None:
    """The machine's limits, one column a thread count."""
    table = Table(title="Limits of the machine", title_justify="left", header_style="bold", box=box.SIMPLE)
    table.add_column("")
    for found in limits:
        table.add_column(f"{found.threads} thread(s)", justify="right")
    lanes = limits[0].lanes
    table.add_row(f"FMA peak, {lanes} lanes, GFLOP/s", *(f"{found.fma_flops / 1e9:.0f}" for found in limits))
    table.add_row("SGEMM 1024^3, NumPy or PyTorch, GFLOP/s", *(f"{found.sgemm_flops / 1e9:.0f}" for found in limits))
    for size in sorted(limits[0].read_bytes):
        name = f"{size // 1024} KiB" if size < 2**20 else f"{size / 2**20:g} MiB"
        rates = (f"{found.read_bytes[size] / 1e9:.0f}" for found in limits)
        table.add_row(f"reading {name} back and forth, GB/s", *rates)
    for cell in limits[0].unit_ns:
        times = (f"{found.unit_ns[cell]:.2f}" for found in limits)
        table.add_row(f"{cell}: cell equations of a unit, ns of one thread", *times)
    console.print(table)
    console.print("Sizes are totals, divided over the threads.")
    if any(disturbed(found.others, found.threads) for found in limits):
        console.print("[red]disturbed: others used CPUs meanwhile, the machine can do more[/red]")
