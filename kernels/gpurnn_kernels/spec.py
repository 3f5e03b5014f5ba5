"""What a kernel must know of a layer's cell, and the arrays of one direction of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
CellName = Literal["lstm", "gru_before", "gru_after"]


@dataclass(frozen=True)
class Spec:
    """One direction of one layer. Arrays of its parameters: "W_x" (G*H, I), "W_h" (G*H, H), "b" (G*H,) and, for
    "gru_after", "b_hn" (H,); gate order f, i, o, g or z, r, n along the first axis."""

    cell: CellName
    input_size: int
    hidden_size: int
    dtype: np.dtype[Any]
    reverse: bool = False

    @property
    def gates(self) -> int:
        """G: 4 for the LSTM, 3 for the GRUs."""
        return 4 if self.cell == "lstm" else 3

    @property
    def states(self) -> int:
        """Arrays in the state: h and c, or h."""
        return 2 if self.cell == "lstm" else 1


Parameters = Mapping[str, Array]
