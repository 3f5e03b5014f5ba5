"""`python -m bench infer`: whole sequences, forward."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bench.harness.cases import OURS
from bench.harness.compare import Measure, Report
from bench.harness.contest import Entry
from bench.limits.bound import sequence_bound
from bench.reports.report import print_limits, print_of_sgemm, print_rows, print_summary


def measure(peers: Sequence[str]) -> Measure:
    """gpurnn and the peers, against the roofline."""
    entries = [Entry(name, name, "infer") for name in (OURS, *peers)]
    return Measure(entries, lambda case: case.flops, sequence_bound)


def show(console: Console, report: Report) -> None:
    """Limits, rows, summary."""
    print_limits(console, report.limits)
    print_rows(console, "Inference", report.rows)
    print_summary(console, report.rows)
    print_of_sgemm(console, report.rows, report.limits)
