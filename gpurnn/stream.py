"""Feeding a layer one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpurnn_kernels.spec import Array

from . import checks
from .backend import HOST, Place, on_device, place_of

if TYPE_CHECKING:
    from .layer import RecurrentLayer


class Captured(NamedTuple):
    """A recorded step: write x_t into `x`, call `replay()`, read h from `out`. The stream's state moves on as with `step`."""

    x: Array  # (B, I)
    out: Array  # (B, H)
    replay: Callable[[], None]


class Stream:
    """A layer and the state of `batch_size` sequences under way; `layer.stream(...)` makes one.

    On the CPU, steps give the same bits as one call over the whole sequence. The stream keeps the parameters that the layer
    had when it was made. One stream serves one thread at a time. It lives where its first array does: the state that it is
    made with, or the first x_t.
    """

    def __init__(self, layer: RecurrentLayer, batch_size: int = 1, state: Any = None, threads: int | None = None) -> None:
        if layer.bidirectional or layer.reverse:
            raise ValueError("a stream runs forward in time: the layer has a reverse direction")
        self._layer, self._prepared = layer, layer._prepared
        self.batch_size = checks.size("batch_size", batch_size)
        self._threads = None if threads is None else checks.size("threads", threads)
        self._dtype = layer.dtype
        self._x_shape = (self.batch_size, layer.input_size)
        self._y_shape = (self.batch_size, layer.output_size)
        first = state[0] if isinstance(state, (tuple, list)) and state else state
        checks.runs_on("state", layer.dtype, place_of(first))
        self._settle(place_of(first))
        self.state = state
        self._fresh = state is None

    def _settle(self, place: Place) -> None:
        """Zeros for a state, in the given memory."""
        self._place = place
        with place.current():
            shapes = self._layer.state_shapes(self.batch_size)
            zeros = [place.zeros(shape, self._dtype) for shape in shapes]
            kernels = place.kernels
            self._stepper = kernels.Stepper(self._prepared.layers(kernels), self.batch_size, zeros, self._threads)
        self._step = self._stepper.step

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """One step: x_t (B, I) -> h of the last layer (B, H), (B, P) with proj_size: a fresh array, or `out` filled, and then
        nothing is allocated (on a GPU: with up to 8 rows).

        Raises ValueError for wrong shapes, TypeError for wrong types and dtypes; the state then stays as it was.
        """
        if type(x_t) is not np.ndarray or x_t.dtype is not self._dtype or not x_t.flags.carray:
            x_t = self._input(x_t)
        if x_t.shape != self._x_shape:
            checks.shape("x_t", x_t, self._x_shape, "B, I")
        if self._place is not HOST:
            return self._step_on_device(x_t, out)
        if out is None:
            out = np.empty(self._y_shape, self._dtype)
        elif type(out) is not np.ndarray or out.dtype is not self._dtype or out.shape != self._y_shape or not out.flags.carray:
            self._refuse(out)
        self._fresh = False
        self._step(x_t, out)
        return out

    def _input(self, x_t: Any) -> Array:
        """x_t checked, and as the kernels read it."""
        checked = checks.array("x_t", x_t, self._dtype)
        place = place_of(checked)
        if self._fresh and place != self._place:
            checks.shape("x_t", checked, self._x_shape, "B, I")
            self._settle(place)
        checks.beside("x_t", checked, self._place, "the state")
        if place is HOST:
            return np.require(checked, requirements=["C", "A", "W"])
        return place.contiguous(checked)

    def _step_on_device(self, x_t: Array, out: Array | None) -> Array:
        place = self._place
        if not on_device(x_t):
            checks.beside("x_t", x_t, place, "the state")
        if out is None:
            out = place.empty(self._y_shape, self._dtype)
        else:
            checked = checks.array("out", out, self._dtype)
            checks.beside("out", checked, place, "the state")
            if checked.shape != self._y_shape or not checked.flags.c_contiguous:
                self._refuse(out)
        self._fresh = False
        self._step(x_t, out)
        return out

    def _refuse(self, out: Any) -> None:
        """Says why `out` cannot be written to."""
        checked = checks.array("out", out, self._dtype)
        checks.shape("out", checked, self._y_shape, "B, P" if self._layer.proj_size else "B, H")
        raise ValueError("out: expected a contiguous, aligned, writeable array")

    def capture(self) -> Captured:
        """A step as CUDA graphs, which cost less to launch than its kernels: see `Captured`. On a GPU, for up to 8 rows.

        Raises ValueError on the CPU, NotImplementedError for more rows. Not yet run on hardware.
        """
        place = self._place
        if place is HOST:
            raise ValueError("capture: the stream lives on the CPU; make it with a state on a GPU, or take a step there first")
        with place.current():
            x, out = place.zeros(self._x_shape, self._dtype), place.zeros(self._y_shape, self._dtype)
        self._fresh = False
        return Captured(x, out, self._stepper.capture(x, out))  # type: ignore[attr-defined]

    @property
    def state(self) -> Any:
        """A copy of the state: (h, c) for an LSTM, h for a GRU, each (L, B, H), h (L, B, P) with proj_size. May be set; None
        sets zeros."""
        return self._layer.state_as_given([array.copy() for array in self._stepper.state], unbatched=False)

    @state.setter
    def state(self, value: Any) -> None:
        checked = self._layer.checked_state("state", value, self.batch_size, self._place)
        for array, new in zip(self._stepper.state, checked, strict=True):
            array[...] = 0 if new is None else new
        self._fresh = False

    def reset(self, rows: Any = None) -> None:
        """Zeroes the state of the given rows (integer indices or a boolean mask (B,)), or of all."""
        if rows is None:
            for array in self._stepper.state:
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
        if index.dtype.kind == "b":
            index = np.flatnonzero(index)
        if self._place.device is not None:
            index = self._place.device.upload(index)
        for array in self._stepper.state:
            array[:, index] = 0
