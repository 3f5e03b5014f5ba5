"""The figure of reduced precisions: a line a case, a column a precision and thread count, a square each.

The colour is gpurnn's ratio to the best peer: of float32 for float32, of any reduced precision for a reduced one. Below the
ratio stands how many times as fast as gpurnn in float32 it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from bench.harness.cases import OURS, precision_of
from bench.harness.rows import Row
from bench.reports.plot import coloured, save, shade, square
from bench.reports.precision import Rows, by_case, label, over_float32
from bench.reports.summary import ours_in, ratios_by_cell


def plot(rows: Sequence[Row], path: Path, machine: str) -> None:
    """Draws gpurnn's rows into a file whose ending names the format."""
    cases = by_case(rows)
    lines = list(dict.fromkeys(replace(case, threads=0) for case in cases))
    counts = sorted({case.threads for case in cases})
    columns = [(name, count) for count in counts for name in ours_in(rows)]
    figure, axes = plt.subplots(figsize=(3.6 + 1.3 * len(columns), 1.6 + 0.5 * len(lines)), layout="constrained")
    colours = np.full((len(lines), len(columns)), np.nan)
    for line, case in enumerate(lines):
        for place, (name, count) in enumerate(columns):
            found: Rows = cases.get(replace(case, threads=count), {})
            ratio = found[name].ratio if name in found else None
            if ratio is None:
                continue
            colours[line, place] = shade(ratio)
            times = over_float32(found, name)
            below = f"{times:.1f} x" if times and name != OURS else ""
            square(axes, (line, place), colours[line, place], f"{ratio:.2f}", below, framed=ratio < 1)
    coloured(axes, colours)
    axes.set_xticks(range(len(columns)), [_head(name, count) for name, count in columns], fontsize=8)
    axes.set_yticks(range(len(lines)), [label(case) for case in lines], fontsize=8)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    means = {name: ratios_by_cell(rows, name) for name in ours_in(rows)}
    shown = ", ".join(f"{precision_of(name)} {found[-1].mean:.2f}" for name, found in means.items() if found)
    title = f"gpurnn against the best of its peers\n(geometric means: {shown})\n"
    title += "reduced precisions against the best peer in any of these; below: times as fast as gpurnn in float32"
    figure.suptitle(f"{title}\n{machine}", fontsize=9)
    save(figure, path)


def _head(name: str, threads: int) -> str:
    return f"{precision_of(name)}\n{threads} thread{'s' if threads > 1 else ''}"
