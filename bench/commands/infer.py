"""`python -m bench infer`: whole sequences, forward."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bench.harness.cases import Case
from bench.harness.compare import Measure, Report
from bench.harness.contest import Entry
from bench.limits.bound import Bound, sequence_bound, step_bound
from bench.limits.measure import Limits
from bench.reports import precision
from bench.reports.report import print_limits, print_of_sgemm, print_rows, print_summary
from bench.reports.summary import in_float32, ours_in


def measure(names: Sequence[str]) -> Measure:
    """gpurnn and the peers: in float32 against the roofline, in reduced precisions without one."""
    entries = [Entry(name, name, "infer") for name in names]
    return Measure(entries, lambda case: case.flops, _bound)


def _bound(case: Case, limits: Limits) -> Bound:
    return (step_bound if case.stream else sequence_bound)(case, limits)


def show(console: Console, report: Report) -> None:
    """Limits, rows, those of reduced precisions by themselves, summary."""
    print_limits(console, report.limits)
    print_rows(console, "Inference", in_float32(report.rows))
    precision.show(console, report.rows)
    print_summary(console, report.rows, ours_in(report.rows))
    print_of_sgemm(console, report.rows, report.limits)
