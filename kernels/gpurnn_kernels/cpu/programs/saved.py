"""The memory in which a forward pass saves gates and cells for the backward pass."""

import sys
from collections.abc import Callable

from ...spec import Array
from ..cells import cell_of
from ..codegen.aligned import address
from ..codegen.descriptors import VECTOR_BYTES
from .blocking import streams
from .buffers import ARRAYS
from .command import Records


class SavedDirection:
    """The gates and cells that one direction saved at [t, b]. `fields`: where the jobs of both passes find them."""

    def __init__(self, fields: dict[str, int], arrays: list[Array]) -> None:
        self.fields, self._arrays = fields, arrays

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends():
            ARRAYS.give_arrays(*getattr(self, "_arrays", ()))  # a constructor that failed left none


class Saved:
    """The arrays that a forward pass of one layer leaves for the backward pass. Nobody else changes them."""

    def __init__(self, x: Array, y: Array, x_stays: bool, y_stays: bool) -> None:
        """x_stays, y_stays: the caller's arrays stay as they are; else the forward pass fills copies as it goes."""
        self.x = x if x_stays else ARRAYS.lease(x.shape, x.dtype)  # (T, B, I)
        self.y = y if y_stays else ARRAYS.lease(y.shape, y.dtype)  # (T, B, D * P)
        self.directions: list[SavedDirection] = []


class SavedBuffers:
    """A source of memory for what one direction saves of `rows` rows (t, b)."""

    def __init__(self, records: Records, rows: int) -> None:
        spec, cell = records.spec, cell_of(records.spec)
        self._dtype = spec.dtype
        # a vector more than the gates take: rows of a power of two bytes would fall on the same lines of the cache
        saved_row = (records.blocks * cell.saved_gates + 1) * VECTOR_BYTES
        # gates, activated or, for a layer with options, not yet; the LSTM's c; a projected layer's m = o * tanh(c)
        self._sizes = {"saved": rows * saved_row // records.item}
        if "c" in spec.shape.states:
            self._sizes["saved_c"] = rows * records.row
        if spec.proj_size:
            self._sizes["saved_m"] = rows * records.row
        self.streaming = streams(rows * saved_row)
        self._fields = {"saved_row": saved_row, "streaming": self.streaming}

    def lease(self) -> SavedDirection:
        """Finds memory for one run; it goes back to the pool with the `SavedDirection`."""
        fields, arrays = self._fields.copy(), []
        for name, size in self._sizes.items():
            array = ARRAYS.take_array(size, self._dtype)
            fields[name] = address(array)
            arrays.append(array)
        return SavedDirection(fields, arrays)
