"""The cells of this backend: a file each, and a line here."""

from ...spec import Spec
from .cell import Cell
from .gru_after import GRUAfter
from .gru_before import GRUBefore
from .lstm import LSTM

CELLS: dict[str, Cell] = {"lstm": LSTM(), "gru_before": GRUBefore(), "gru_after": GRUAfter()}


def cell_of(spec: Spec) -> Cell:
    """The cell of a layer."""
    return CELLS[spec.cell]
