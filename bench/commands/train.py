"""`python -m bench train`: forward and backward of one layer, against PyTorch's autograd.

gpurnn: `load_params` of changed weights, as after an optimiser's step, then `vjp` and the gradients of x and of all
weights; "gpurnn-kept" leaves the weights as they were. PyTorch: forward, `backward`, the same gradients; its optimisers
change the weights in place. The optimiser's own arithmetic is in neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bench.harness.cases import OURS
from bench.harness.compare import Measure, Report
from bench.harness.contest import Entry
from bench.reports.report import print_limits, print_rows, print_summary

KEPT = f"{OURS}-kept"
FORWARD_AND_BACKWARD = 3  # times the forward's flops: two products of the same size for each of the forward's


def measure(names: Sequence[str]) -> Measure:
    """gpurnn with and without reloaded weights, and the peers."""
    ours = [Entry(OURS, OURS, "train-reload"), Entry(KEPT, OURS, "train")]
    entries = ours + [Entry(name, name, "train") for name in names if name != OURS]
    return Measure(entries, lambda case: FORWARD_AND_BACKWARD * case.flops, bound=None)


def show(console: Console, report: Report) -> None:
    """Limits, rows and summary."""
    print_limits(console, report.limits)
    print_rows(console, "Training step", report.rows)
    print_summary(console, report.rows, (OURS, KEPT))
