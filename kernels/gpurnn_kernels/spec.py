"""The facts that a kernel must know of a layer's cell, and the arrays of one direction of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
CellName = str  # a name in CELL_SHAPES
REDUCED = ("bf16", "int8")  # precisions of products on a CPU, forward only
WEIGHTS = ("W_x", "W_h", "W_p")  # the parameters that products multiply by
MOST_INT8 = (1 << 31) // (128 * 127)  # factors of a product of 8-bit integers, whose sum 32 bits hold


class CellShape(NamedTuple):
    """A cell's row in the table of cells. Sizes and the parameters' names follow from it."""

    gates: int  # G
    states: tuple[str, ...] = ("h",)
    biases: tuple[str, ...] = ()  # (H,) each, of one gate, beside b
    products: int = 1  # of a step with recurrent weights: each waits for all units of the one before


CELL_SHAPES = {
    "lstm": CellShape(4, states=("h", "c")),
    "gru_before": CellShape(3, products=2),
    "gru_after": CellShape(3, biases=("b_hn",)),
}


@dataclass(frozen=True)
class Spec:
    """One direction of one layer.

    Its parameters are arrays "W_x" (G*H, I), "W_h" (G*H, P) and "b" (G*H,); for "gru_after" also "b_hn" (H,); with peepholes
    "peephole" (3*H,); with proj_size "W_p" (P, H). The gates stand in the order f, i, o, g or z, r, n along the first axis. P
    is proj_size or, without one, H.
    """

    cell: CellName
    input_size: int
    hidden_size: int
    dtype: np.dtype[Any]
    reverse: bool = False
    proj_size: int = 0
    peepholes: bool = False
    clip: float | None = None
    precision: str | None = None  # of products: None for that of the dtype; "tf32" on a GPU, "bf16" or "int8" on a CPU
    fast_math: bool = False  # on a GPU: the hardware's approximate activations

    @property
    def shape(self) -> CellShape:
        """The cell's row in the table of cells."""
        return CELL_SHAPES[self.cell]

    @property
    def gates(self) -> int:
        """G, the number of gates: 4 for the LSTM, 3 for the GRUs."""
        return self.shape.gates

    @property
    def output_size(self) -> int:
        """P, the units of h."""
        return self.proj_size or self.hidden_size

    @property
    def phases(self) -> int:
        """The phases of a step. Before the second one, all units' r * h, or m = o * tanh(c), must be done."""
        return self.shape.products + (self.proj_size > 0)

    @property
    def has_options(self) -> bool:
        """Tells whether the layer has a projection, peepholes or a clip."""
        return bool(self.proj_size) or self.peepholes or self.clip is not None

    @property
    def variant(self) -> str:
        """The name of the kernels that run the layer: the plain cell's, or those that can do more."""
        if not self.has_options:
            return self.cell
        return "lstm_options" if self.cell == "lstm" else f"{self.cell}_clip"


Parameters = Mapping[str, Array]
