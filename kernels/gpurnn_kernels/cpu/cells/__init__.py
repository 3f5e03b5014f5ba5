"""The cells of this backend: each is a file, and a line here."""

from ...spec import Spec
from ..codegen.compile import not_kept
from .cell import Cell, Steps
from .gru_after import GRUAfterCell
from .gru_before import GRUBeforeCell
from .lstm import LSTMCell

CELLS: dict[str, Cell] = {"lstm": LSTMCell(), "gru_before": GRUBeforeCell(), "gru_after": GRUAfterCell()}


def cell_of(spec: Spec) -> Cell:
    """Gives the cell of a layer."""
    return CELLS[spec.cell]


def steps_of(spec: Spec) -> Steps:
    """Gives the kernels of a layer's steps."""
    cell = cell_of(spec)
    steps = cell.steps(spec)
    if not type(cell).__module__.startswith(f"{__package__}."):
        not_kept(steps.kernels)
    return steps
