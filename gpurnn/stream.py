"""Feeding a layer one step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpurnn_kernels.spec import Array

from . import checks
from .backend import HOST

if TYPE_CHECKING:
    from .layer import RecurrentLayer


class Stream:
    """A layer and the state of `batch_size` sequences under way; `layer.stream(...)` makes one.

    Steps give the same bits as one call over the whole sequence. The stream keeps the parameters that the layer had when it
    was made. One stream serves one thread at a time.
    """

    def __init__(self, layer: RecurrentLayer, batch_size: int = 1, state: Any = None) -> None:
        if layer.bidirectional or layer.reverse:
            raise ValueError("a stream runs forward in time: the layer has a reverse direction")
        self._layer = layer
        self.batch_size = checks.size("batch_size", batch_size)
        self._dtype = layer.dtype
        self._x_shape = (self.batch_size, layer.input_size)
        self._y_shape = (self.batch_size, layer.output_size)
        self._state = [np.zeros_like(array) for array in layer.empty_state(self.batch_size, HOST)]
        kernels = HOST.kernels
        self._step = kernels.Stepper(layer._prepared.layers(kernels), self.batch_size, self._state).step
        self.state = state

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """One step: x_t (B, I) -> h of the last layer (B, H), (B, P) with proj_size: a fresh array, or `out` filled, and then
        nothing is allocated.

        Raises ValueError for wrong shapes, TypeError for wrong types and dtypes; the state then stays as it was.
        """
        if type(x_t) is not np.ndarray or x_t.dtype is not self._dtype or not x_t.flags.carray:
            x_t = np.require(checks.array("x_t", x_t, self._dtype), requirements=["C", "A", "W"])
        if x_t.shape != self._x_shape:
            checks.shape("x_t", x_t, self._x_shape, "B, I")
        if out is None:
            out = np.empty(self._y_shape, self._dtype)
        elif type(out) is not np.ndarray or out.dtype is not self._dtype or out.shape != self._y_shape or not out.flags.carray:
            self._refuse(out)
        self._step(x_t, out)
        return out

    def _refuse(self, out: Any) -> None:
        """Says why `out` cannot be written to."""
        checked = checks.array("out", out, self._dtype)
        checks.shape("out", checked, self._y_shape, "B, P" if self._layer.proj_size else "B, H")
        raise ValueError("out: expected a contiguous, aligned, writeable array")

    @property
    def state(self) -> Any:
        """A copy of the state: (h, c) for an LSTM, h for a GRU, each (L, B, H), h (L, B, P) with proj_size. May be set; None
        sets zeros."""
        return self._layer.state_as_given([array.copy() for array in self._state], unbatched=False)

    @state.setter
    def state(self, value: Any) -> None:
        checked = self._layer.checked_state("state", value, self.batch_size, HOST)
        for array, new in zip(self._state, checked, strict=True):
            array[...] = 0 if new is None else new

    def reset(self, rows: Any = None) -> None:
        """Zeroes the state of the given rows (integer indices or a boolean mask (B,)), or of all."""
        if rows is None:
            for array in self._state:
                array[...] = 0
            return
        index = np.asarray(rows)
        if index.size == 0 and index.dtype.kind == "f":
            index = index.astype(np.intp)
        if index.dtype.kind not in "iub":
            raise TypeError(f"rows: expected integer indices or a boolean mask, got {index.dtype}")
        if index.dtype.kind == "b" and index.shape != (self.batch_size,):
            raise ValueError(f"rows: expected a mask of shape (B,) = ({self.batch_size},), got {index.shape}")
        if index.dtype.kind != "b" and index.size and not (-self.batch_size <= index.min() and index.max() < self.batch_size):
            raise ValueError(f"rows: expected indices below {self.batch_size}, got {index.min()}..{index.max()}")
        for array in self._state:
            array[:, index] = 0
