"""The figure in which one sees where gpurnn stands: one panel a cell, input size and thread count, one square a case.

The colour is the ratio to the best peer (blue: faster than all of them, red: slower than one); below the ratio stands
the fraction of the roofline that gpurnn reaches. Without gpurnn's rows, the best peer's fraction is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from bench.harness.cases import OURS
from bench.harness.errors import BenchError
from bench.harness.rows import Row, is_ours
from bench.reports.summary import ratios_by_cell

NAMES = {"lstm": "LSTM", "gru": "GRU, reset before", "gru-after": "GRU, reset after"}
FASTEST, SLOWEST = 2.0, 0.7  # ratios at which the colours are full
COLOURS = LinearSegmentedColormap.from_list("ratio", ["#b2182b", "#f4a582", "#f7f7f7", "#92c5de", "#2166ac"])

Panel = tuple[str, int | None, int]  # cell, input size (None: I = H), threads


def _panel(row: Row) -> Panel:
    return row.cell, None if row.input == row.hidden else row.input, row.threads


def shade(ratio: float) -> float:
    """-1 to 1, 0 where gpurnn and the best peer are equal."""
    return math.log(ratio) / abs(math.log(FASTEST if ratio > 1 else SLOWEST))


def _draw(axes: Axes, rows: Sequence[Row], with_ratio: bool) -> None:
    batches = sorted({row.batch for row in rows})
    hidden = sorted({row.hidden for row in rows})
    colours = np.full((len(hidden), len(batches)), np.nan)
    for row in rows:
        at = hidden.index(row.hidden), batches.index(row.batch)
        value = row.ratio if with_ratio else row.of_bound
        if value is None:
            continue
        colours[at] = shade(value) if with_ratio else 2 * value - 1
        text = f"{value:.2f}" if with_ratio else f"{value:.0%}"
        below = f"{row.of_bound:.0%}" if with_ratio and row.of_bound else row.implementation if not with_ratio else ""
        square(axes, at, colours[at], text, below, framed=with_ratio and value < 1)
    coloured(axes, colours)
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_yticks(range(len(hidden)), [str(size) for size in hidden])


def square(axes: Axes, at: tuple[int, int], colour: float, text: str, below: str, *, framed: bool) -> None:
    """Writes into a square of a panel; at: its line and column."""
    line, column = at
    if framed:
        axes.add_patch(Rectangle((column - 0.47, line - 0.47), 0.94, 0.94, fill=False, edgecolor="#b2182b"))
    dark = "white" if abs(colour) > 0.75 else "black"
    axes.text(column, line - 0.12, text, ha="center", va="center", color=dark, fontsize=9, fontweight="bold")
    axes.text(column, line + 0.27, below, ha="center", va="center", color=dark, fontsize=6.5)


def coloured(axes: Axes, colours: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    """Paints the squares of a panel, with white lines between them."""
    axes.imshow(colours, cmap=COLOURS, norm=Normalize(-1, 1), aspect="auto")
    axes.tick_params(length=0)
    lines, columns = colours.shape
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(lines + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def plot(rows: Sequence[Row], path: Path, machine: str) -> None:
    """Draws the inference rows of a run into a file whose ending names the format."""
    with_ratio = any(row.implementation == OURS and row.ratio is not None for row in rows)
    if with_ratio:
        shown = [row for row in rows if row.implementation == OURS]
    else:
        shown = [row for row in rows if row.implementation == row.best_peer and not is_ours(row.implementation)]
    if not shown:
        raise BenchError("no row of gpurnn or of a peer: there is nothing to draw")
    panels: dict[Panel, list[Row]] = {}
    for row in shown:
        panels.setdefault(_panel(row), []).append(row)
    cells = [cell for cell in NAMES if any(panel[0] == cell for panel in panels)]
    columns = sorted({panel[1:] for panel in panels}, key=lambda column: (column[0] or 0, column[1]))
    figure, grid = plt.subplots(
        len(cells),
        len(columns),
        figsize=(max(8.0, 1.2 + 3.6 * len(columns)), 1.2 + 3.0 * len(cells)),
        squeeze=False,
        layout="constrained",
    )
    for line, cell in enumerate(cells):
        for place, (size, threads) in enumerate(columns):
            axes = grid[line][place]
            found = panels.get((cell, size, threads))
            if not found:
                axes.axis("off")
                continue
            _draw(axes, found, with_ratio)
            if line == 0:
                inputs = "I = H" if size is None else f"I = {size}"
                axes.set_title(f"{inputs}, {threads} thread{'s' if threads > 1 else ''}", fontsize=10)
            if line == len(cells) - 1:
                axes.set_xlabel("batch B")
            if place == 0:
                axes.set_ylabel(f"{NAMES[cell]}\nhidden size H")
    peers = sorted({row.implementation for row in rows if not is_ours(row.implementation)})
    if with_ratio:
        means = ", ".join(f"{NAMES.get(r.what, r.what)} {r.mean:.2f}" for r in ratios_by_cell(rows))
        title = f"gpurnn against the best of its peers\n(geometric means: {means})\n"
        title += "times as fast as the best peer (blue: faster; red, framed: slower); below: fraction of the machine's bound"
    else:
        title = f"The best of {', '.join(peers)}:\nfraction of the machine's bound (gpurnn was not measured)"
    figure.suptitle(f"{title}\n{machine}", fontsize=10)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    if path.suffix == ".png":
        # 256 colours: a third of the size
        Image.open(path).convert("RGB").quantize(dither=Image.Dither.NONE).save(path, optimize=True)
