"""The sizes and the layers with options that several suites are run over."""

from typing import Any

import numpy as np
import pytest
import reference_cells
from helpers import OUTPUTS, Floats, Problem
from reference import packed
from reference_cells import CELLS

SIZES = [  # T, B, I, H: vectors are 2 to 16 elements, tiles 3 to 8 rows
    (5, 3, 4, 7),
    (1, 1, 1, 1),
    (33, 2, 5, 31),
    (5, 13, 40, 33),
    (1, 3, 70, 100),
    (33, 1, 40, 64),
    (3, 50, 3, 20),
    (0, 2, 5, 7),
    (5, 0, 5, 7),
    (0, 0, 1, 1),
]
every_cell = pytest.mark.parametrize("cell", CELLS)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "peepholes": ("lstm", {"peepholes": True}),
    "clip": ("lstm", {"clip": 0.4}),
    "input_forget": ("lstm", {"input_forget": True}),
    "proj_size": ("lstm", {"proj_size": 3}),
    "no projection": ("lstm", {"peepholes": True, "clip": 0.4, "input_forget": True}),
    "all": ("lstm", {"proj_size": 5, "peepholes": True, "clip": 0.4, "input_forget": True}),
    "gru clip": ("gru", {"clip": 0.4}),
    "gru_after clip": ("gru_after", {"clip": 0.4}),
}
LSTMS = [name for name, (cell, _) in KINDS.items() if cell == "lstm"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", OUTPUTS)


class OptionProblem(Problem):
    """A problem whose h may be narrower than H, and whose gates' inputs lie on both sides of the clip."""

    def __init__(self, kind: str, T: int = 5, B: int = 3, I: int = 4, H: int = 7, **more: Any) -> None:
        cell, options = KINDS[kind]
        super().__init__(cell, T, B, I, H, **{**options, **more})
        rng = np.random.default_rng(1)
        rows = more.get("num_layers", 1) * (D := 2 if more.get("bidirectional") else 1)
        P = self.options.get("proj_size") or H

        def draw(*shape: int) -> Floats:
            return rng.standard_normal(shape).astype(self.x.dtype)

        self.dy = draw(T, B, D * P)
        self.state, self.dstate = (
            packed([draw(rows, B, size) for size in (P, H)[: reference_cells.CELLS[cell].states]]) for _ in range(2)
        )
        if self.lengths is not None:
            self.dy[self.past] = np.nan
