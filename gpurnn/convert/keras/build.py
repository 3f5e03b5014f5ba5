"""A layer out of the weights of its Keras cells and what is known of them beside."""

from collections.abc import Sequence

from ... import checks, gates
from ...layers.make import Layer, converted
from .. import check
from .config import Description
from .weights import Cell


def build(description: Description, cells: Sequence[Cell], label: str, precision: str | None) -> Layer:
    """Makes the layer of one cell, or of two for both directions, forward first.

    label: the source's name, for errors. Raises ValueError for cells that do not fit together or the description.
    """
    if len(cells) != (2 if description.bidirectional else 1):
        raise ValueError(f"{label}: expected the weights of {1 + description.bidirectional} directions, got {len(cells)}")
    first = cells[0]
    reset_after = first.reset_after
    if first.kind == "GRU" and reset_after is None:  # no bias: its shape would tell
        reset_after = description.reset_after
        if reset_after is None:
            raise ValueError(
                f"{label}: a GRU without a bias: its weights do not tell reset_after; convert the layer itself, or a file "
                "that holds the model"
            )
    if description.kind not in (None, first.kind):
        raise ValueError(f"{label}: the model says {description.kind}, the weights are those of an {first.kind}")
    if None not in (description.reset_after, first.reset_after) and description.reset_after != first.reset_after:
        raise ValueError(f"{label}: the model says reset_after={description.reset_after}, the shapes of the weights otherwise")
    hidden, inputs = first.hidden_size, first.input_size
    for other in cells[1:]:
        if other[1:5] != first[1:5]:
            raise ValueError(f"{label}: the two directions differ in kind or size: {first.title} and {other.title}")
        if (other.source.b_x is None) != (first.source.b_x is None):
            raise ValueError(f"{label}: one direction has a bias, the other has none")
    dtypes = {array.dtype for cell in cells for array in cell.source if array is not None}
    if len(dtypes) != 1:
        raise ValueError(f"{label}: expected weights of one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    configuration = {
        **{"input_size": inputs, "hidden_size": hidden, "bias": first.source.b_x is not None, "batch_first": True},
        **{"bidirectional": len(cells) == 2, "reset_after": bool(reset_after), "dtype": dtypes.pop()},
        "precision": checks.asked(precision, None),
    }
    params = [gates.direction(first.kind, gates.KERAS, cell.source, bool(reset_after)) for cell in cells]
    check.dropped(label, description.dropout)
    return converted(first.kind, configuration, [params])
