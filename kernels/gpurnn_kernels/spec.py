"""What a kernel must know of a layer's cell, and the arrays of one direction of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
CellName = Literal["lstm", "gru_before", "gru_after"]


@dataclass(frozen=True)
class Spec:
    """One direction of one layer. Arrays of its parameters: "W_x" (G*H, I), "W_h" (G*H, P), "b" (G*H,) and, for
    "gru_after", "b_hn" (H,), with peepholes "peephole" (3*H,), with proj_size "W_p" (P, H); gate order f, i, o, g or
    z, r, n along the first axis. P is proj_size or, without one, H."""

    cell: CellName
    input_size: int
    hidden_size: int
    dtype: np.dtype[Any]
    reverse: bool = False
    proj_size: int = 0
    peepholes: bool = False
    clip: float | None = None
    precision: str | None = None  # of products on a GPU: "tf32", or None for that of the dtype
    fast_math: bool = False  # on a GPU: the hardware's approximate activations

    @property
    def gates(self) -> int:
        """G: 4 for the LSTM, 3 for the GRUs."""
        return 4 if self.cell == "lstm" else 3

    @property
    def output_size(self) -> int:
        """P: units of h."""
        return self.proj_size or self.hidden_size

    @property
    def phases(self) -> int:
        """Phases of a step: its units need all others' r * h, or m = o * tanh(c), before its second one."""
        return 2 if self.cell == "gru_before" or self.proj_size else 1

    @property
    def variant(self) -> str:
        """The kernels that run it: the plain cell's, or those that can do more."""
        if self.cell == "lstm":
            return "lstm_options" if self.proj_size or self.peepholes or self.clip is not None else "lstm"
        return self.cell if self.clip is None else f"{self.cell}_clip"


Parameters = Mapping[str, Array]
