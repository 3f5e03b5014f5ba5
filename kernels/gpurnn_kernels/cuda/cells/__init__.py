"""The cells of this backend: each is a file, and a line here."""

from ...spec import Spec
from .cell import Cell
from .gru_after import GRUAfterCell
from .gru_before import GRUBeforeCell
from .lstm import LSTMCell

CELLS: dict[str, Cell] = {"lstm": LSTMCell(), "gru_before": GRUBeforeCell(), "gru_after": GRUAfterCell()}


def cell_of(spec: Spec) -> Cell:
    """Gives the cell of a layer."""
    return CELLS[spec.cell]
