"""Feeding a layer one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy import ndarray

from gpurnn_kernels.spec import Array

from .. import checks
from ..backend import Place, on_device, place_of
from . import state as states
from .prepared import Prepared

State = TypeVar("State")  # a pair of arrays (h, c) for an LSTM, an array for a GRU

# attributes of a stream that its copies make anew
_MADE = (
    *("_prepared", "_batch_size", "_threads", "_dtype", "_x_shape", "_y_shape"),
    *("_place", "_on_host", "_stepper", "_step", "_fresh"),
)


class Captured(NamedTuple):
    """A recorded step: write x_t into `x`, call `replay()`, read h from `out`. The stream's state moves on as with `step`."""

    x: Array  # (B, I)
    out: Array  # (B, H)
    replay: Callable[[], None]


class Stream(Generic[State]):
    """The state of `batch_size` sequences under way through a layer; `layer.stream(...)` makes one.

        stream = layer.stream(batch_size=2)
        for x_t in x:  # (T, 2, I)
            h = stream.step(x_t)  # (2, H)

    On the CPU, steps give the same bits as one call over the whole sequence. The stream keeps the parameters that the layer
    had when it was made. One stream serves one thread at a time. It lives where its first array does: the state that it is
    made with, or the first x_t. A copy of it, or what comes out of a pickle, starts from its state and steps on by itself.
    """

    def __init__(self, prepared: Prepared, batch_size: int = 1, state: Any = None, threads: int | None = None) -> None:
        """Makes a stream of a layer's parameters; raises as `layer.stream` does."""
        if prepared.description.bidirectional or prepared.description.reverse:
            raise ValueError("a stream runs forward in time: the layer has a reverse direction")
        most = None if threads is None else checks.size("threads", threads)
        self._start(prepared, checks.size("batch_size", batch_size), state, most)

    def _start(self, prepared: Prepared, batch_size: int, state: Any, threads: int | None) -> None:
        self._prepared, self._batch_size, self._threads = prepared, batch_size, threads
        self._dtype = prepared.dtype
        self._x_shape = (batch_size, prepared.description.input_size)
        self._y_shape = (batch_size, prepared.description.output_size)
        first = state[0] if isinstance(state, (tuple, list)) and state else state
        checks.runs_on("state", self._dtype, place_of(first))
        self._settle(place_of(first))
        self.state = state
        self._fresh = state is None

    @property
    def batch_size(self) -> int:
        """The number of sequences under way."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: Any) -> None:
        raise AttributeError("batch_size is read-only: make a new stream, layer.stream(batch_size, state)")

    def __getstate__(self) -> dict[str, Any]:
        """Gives the parameters, the state, and what users have set."""
        own = {name: value for name, value in vars(self).items() if name not in _MADE}
        state = None if self._fresh else self.state
        made_of = {"prepared": self._prepared, "batch_size": self._batch_size, "threads": self._threads}
        return {**made_of, "state": state, "attributes": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state["attributes"])
        if "layer" in state:  # as 0.1.0 wrote it: with the layer, and the stream's parameters if the layer had others by then
            layer, params = state["layer"], state["params"]
            if params is not None:
                layer = type(layer).with_params(layer.configuration(), params)
            made = layer.stream(state["batch_size"], state["state"], threads=state["threads"])
            vars(self).update(vars(made))
            return
        self._start(state["prepared"], state["batch_size"], state["state"], state["threads"])

    def _settle(self, place: Place) -> None:
        """Makes a state of zeros in the given memory."""
        self._place, self._on_host = place, place.device is None
        with place.current():
            shapes = self._prepared.description.state_shapes(self.batch_size)
            zeros = [place.zeros(shape, self._dtype) for shape in shapes]
            kernels = place.kernels
            self._stepper = kernels.Stepper(self._prepared.layers(kernels), self.batch_size, zeros, self._threads)
        self._step = self._stepper.step

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """Runs one step and moves the state on.

        Args:
            x_t: (B, I), of the layer's dtype.
            out: (B, H), or (B, P) with proj_size, to be filled: nothing is allocated then (on a GPU: with up to 8 rows), but a
                copy of x_t where `out` overlaps it. None for a fresh array.

        Returns the last layer's h, (B, H) or (B, P). Raises ValueError for wrong shapes, TypeError for wrong types and dtypes;
        the state then stays as it was.
        """
        if type(x_t) is not ndarray or x_t.dtype is not self._dtype or not x_t.flags.carray:
            x_t = self._input(x_t)
        if x_t.shape != self._x_shape:
            checks.shape("x_t", x_t, self._x_shape, "B, I")
        if not self._on_host:
            return self._step_on_device(x_t, out)
        if out is None:
            out = np.empty(self._y_shape, self._dtype)
        elif (
            type(out) is not ndarray
            or (out.dtype is not self._dtype and out.dtype != self._dtype)
            or out.shape != self._y_shape
            or not out.flags.carray
        ):
            self._refuse(out)
        self._fresh = False
        self._step(x_t, out)
        return out

    def _input(self, x_t: Any) -> Array:
        """Gives x_t checked, and as the kernels read it."""
        found = checks.ready(x_t, self._dtype) if self._on_host else None
        if found is not None:
            return found if found.flags.writeable else found.copy()
        checked = checks.array("x_t", x_t, self._dtype)
        place = place_of(checked)
        if self._fresh and place != self._place:
            checks.shape("x_t", checked, self._x_shape, "B, I")
            self._settle(place)
        checks.beside("x_t", checked, self._place, "the state")
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
            if _overlap(x_t, out, place.device.address):
                x_t = x_t.copy()
        self._fresh = False
        with place.current():
            self._step(x_t, out)
        return out

    def _refuse(self, out: Any) -> None:
        """Says why `out` cannot be written to."""
        checked = checks.array("out", out, self._dtype)
        checks.shape("out", checked, self._y_shape, "B, P" if self._prepared.description.proj_size else "B, H")
        raise ValueError("out: expected a contiguous, aligned, writeable array")

    def capture(self) -> Captured:
        """Records a step as CUDA graphs, which cost less to launch than its kernels; on a GPU, for up to 8 rows.

            step = stream.capture()
            step.x[...] = x_t
            step.replay()
            h = step.out

        Raises ValueError on the CPU, NotImplementedError for more rows. Not yet run on hardware.
        """
        place = self._place
        if self._on_host:
            raise ValueError("capture: the stream lives on the CPU; make it with a state on a GPU, or take a step there first")
        with place.current():
            x, out = place.zeros(self._x_shape, self._dtype), place.zeros(self._y_shape, self._dtype)
            replay = self._stepper.capture(x, out)  # type: ignore[attr-defined]
        self._fresh = False
        return Captured(x, out, replay)

    @property
    def state(self) -> State:
        """A copy of the state: (h, c) for an LSTM, h for a GRU, each (L, B, H), h (L, B, P) with proj_size.

        It may be set, to arrays of these shapes or to None for zeros. Raises ValueError for wrong shapes, TypeError for wrong
        types and dtypes.
        """
        with self._place.current():
            copies = [array.copy() for array in self._stepper.state]
        found: State = states.as_given(copies, unbatched=False)
        return found

    @state.setter
    def state(self, value: State | None) -> None:
        checked = states.checked(self._prepared.description, "state", value, self.batch_size, self._place)
        with self._place.current():
            for array, new in zip(self._stepper.state, checked, strict=True):
                array[...] = 0 if new is None else new
        self._fresh = False

    def reset(self, rows: Any = None) -> None:
        """Zeroes the state of the given rows, integer indices or a boolean mask (B,), or of all.

            stream.reset([0, 3])

        Raises ValueError for indices out of range and masks of another shape, TypeError for other types.
        """
        if rows is None:
            self._zero(...)
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
        self._zero((slice(None), index))

    def _zero(self, which: Any) -> None:
        with self._place.current():
            for array in self._stepper.state:
                array[which] = 0


def _overlap(a: Array, b: Array, address: Callable[[Array], int]) -> bool:
    """Tells whether two arrays without gaps have a byte in common."""
    return address(a) < address(b) + b.nbytes and address(b) < address(a) + a.nbytes
