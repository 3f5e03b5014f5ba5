"""The figure of a GPU run: microseconds a step over H, one panel a cell and batch, beside the model's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from bench.cuda.cards import CARDS
from bench.cuda.contest import GpuRow
from bench.cuda.model import predict

MARKS = {"gpurnn": "o-", "gpurnn-stepwise": "s--", "torch": "^:"}


def draw(rows: Sequence[GpuRow], gpu: str, path: Path) -> None:
    """Forward passes in float32."""
    shown = [row for row in rows if row.case.kind == "forward" and row.case.precision == "float32"]
    cells = list(dict.fromkeys(row.case.cell for row in shown))
    batches = sorted({row.case.batch for row in shown})
    card = next((card for card in CARDS if card.name in gpu), None)
    size = (3.2 * max(len(batches), 1), 2.8 * max(len(cells), 1))
    figure, panels = plt.subplots(max(len(cells), 1), max(len(batches), 1), figsize=size, squeeze=False, sharex=True)
    for cell, line in zip(cells, panels, strict=False):
        for batch, axes in zip(batches, line, strict=False):
            here = [row for row in shown if row.case.cell == cell and row.case.batch == batch]
            for name, mark in MARKS.items():
                points = sorted((row.case.hidden, row.us_per_step) for row in here if row.implementation == name)
                if points:
                    axes.plot(*zip(*points, strict=True), mark, label=name, markersize=4)
            if card:
                sizes = sorted({row.case for row in here}, key=lambda case: case.hidden)
                found = [(case.hidden, predict(card, case.case)) for case in sizes]
                values = [(hidden, one.stepwise if one.persistent is None else one.persistent) for hidden, one in found]
                axes.plot(*zip(*values, strict=True), "x", color="gray", label="predicted")
            axes.set(xscale="log", yscale="log", title=f"{cell}, B = {batch}", xlabel="H", ylabel="µs a step")
            axes.set_xticks(sorted({row.case.hidden for row in here}), [str(h) for h in sorted({r.case.hidden for r in here})])
    panels[0][0].legend(fontsize=7)
    figure.suptitle(f"{gpu}, forward, float32, T = 128, I = H")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
