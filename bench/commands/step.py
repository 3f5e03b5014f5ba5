"""`python -m bench step`: the latency of one step of a stream, the state kept between calls, on one thread.

gpurnn: `stream.step(x_t, out=...)`; ONNX Runtime and OpenVINO: a call for T=1 with the state fed back;
PyTorch: LSTMCell and GRUCell.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bench.harness.compare import Measure, Report
from bench.harness.contest import Entry
from bench.limits.bound import step_bound
from bench.reports import precision
from bench.reports.report import print_limits, print_rows, print_summary
from bench.reports.summary import in_float32, ours_in, times_faster

AGAINST = "onnxruntime"


def measure(names: Sequence[str]) -> Measure:
    """gpurnn and the peers: in float32 against the roofline of one step, in reduced precisions without one."""
    entries = [Entry(name, name, "step") for name in names]
    return Measure(entries, lambda case: case.flops, step_bound)


def show(console: Console, report: Report) -> None:
    """Limits, rows, and what is left above the bound."""
    print_limits(console, report.limits)
    print_rows(console, "One step", in_float32(report.rows), micro=True, p99=True)
    precision.show(console, report.rows)
    print_summary(console, report.rows, ours_in(report.rows))
    for row, ratio in times_faster(report.rows, AGAINST):
        above = "" if row.bound_ms is None else f", {(row.ms - row.bound_ms) * 1e3:.1f} µs above the bound"
        console.print(f"{row.case}: {ratio:.2f} times as fast as {AGAINST}{above}", highlight=False)
