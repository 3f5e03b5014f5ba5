"""What a forward pass leaves for the backward pass, beside x and y: a few arrays of each direction."""

from dataclasses import dataclass

from ..spec import Array
from .job import VECTOR_BYTES
from .records import Records, address
from .shelf import ARRAYS

_SAVED_GATES = {"lstm": 4, "gru_before": 3, "gru_after": 4}
PAST_BYTES = 3 << 22  # of kept gates: more are far away again before the backward pass reads them


@dataclass(frozen=True)
class Kept:
    """Of one direction. `fields`: what the jobs of both passes are told of it."""

    fields: dict[str, int]
    arrays: list[Array]

    def __del__(self) -> None:
        ARRAYS.returned(*self.arrays)


def keep(records: Records, rows: int) -> Kept:
    """Memory for one direction, `rows` rows (t, b): gates, activated or, for a layer with options, not yet; the LSTM's c; a
    projected layer's m = o * tanh(c)."""
    spec = records.spec
    # a vector more than the gates take: rows of a power of two bytes would fall on the same lines of the cache
    saved_row = (records.blocks * _SAVED_GATES[spec.cell] + 1) * VECTOR_BYTES
    sizes = {"saved": rows * saved_row // records.item}
    if spec.cell == "lstm":
        sizes["saved_c"] = rows * records.row
    if spec.proj_size:
        sizes["saved_m"] = rows * records.row
    arrays = {name: ARRAYS.borrowed(size, spec.dtype) for name, size in sizes.items()}
    fields = {name: address(array) for name, array in arrays.items()}
    past = arrays["saved"].nbytes > PAST_BYTES
    return Kept({**fields, "saved_row": saved_row, "past": past}, list(arrays.values()))
