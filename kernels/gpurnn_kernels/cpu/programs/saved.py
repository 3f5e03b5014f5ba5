"""What a forward pass leaves for the backward pass."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...spec import Array
from ..codegen.aligned import address
from ..codegen.descriptors import VECTOR_BYTES
from .blocking import streams
from .buffers import ARRAYS
from .command import Records

_SAVED_GATES = {"lstm": 4, "gru_before": 3, "gru_after": 4}


class SavedDirection:
    """Of one direction: arrays of its gates and cells at [t, b]. `fields`: what the jobs of both passes are told of them."""

    def __init__(self, fields: dict[str, int], arrays: list[Array]) -> None:
        self.fields, self._arrays = fields, arrays

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends():
            ARRAYS.give_back(*getattr(self, "_arrays", ()))  # a constructor that failed left none


@dataclass(frozen=True)
class Saved:
    """Of one layer: arrays that nobody else changes."""

    x: Array  # (T, B, I)
    y: Array  # (T, B, D * P)
    directions: Sequence[SavedDirection]


class SavedBuffers:
    """Gives a forward pass of `rows` rows (t, b) memory for what one direction of it keeps."""

    def __init__(self, records: Records, rows: int) -> None:
        spec = records.spec
        self._dtype = spec.dtype
        # a vector more than the gates take: rows of a power of two bytes would fall on the same lines of the cache
        saved_row = (records.blocks * _SAVED_GATES[spec.cell] + 1) * VECTOR_BYTES
        # gates, activated or, for a layer with options, not yet; the LSTM's c; a projected layer's m = o * tanh(c)
        self._sizes = {"saved": rows * saved_row // records.item}
        if spec.cell == "lstm":
            self._sizes["saved_c"] = rows * records.row
        if spec.proj_size:
            self._sizes["saved_m"] = rows * records.row
        self._fields = {"saved_row": saved_row, "streaming": streams(rows * saved_row)}

    def keep(self) -> SavedDirection:
        fields, arrays = self._fields.copy(), []
        for name, size in self._sizes.items():
            array = ARRAYS.leased(size, self._dtype)
            fields[name] = address(array)
            arrays.append(array)
        return SavedDirection(fields, arrays)
