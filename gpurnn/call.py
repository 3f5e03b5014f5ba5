"""One call of a layer: its arguments, checked; and, for a shape that has been seen before, the short way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpurnn_kernels.spec import Array

from . import checks
from .backend import HOST, on_device, place_of

if TYPE_CHECKING:
    from .layer import RecurrentLayer

PLAIN_SHAPES = 8  # of x, that a layer keeps in mind and has calls ready for


def remember(known: dict[tuple[int, ...], Any], shape: tuple[int, ...], what: Any) -> None:
    """By the shape of x; of too many shapes, none of the earlier ones."""
    if len(known) >= PLAIN_SHAPES:
        known.clear()
    known[shape] = what


class PlainCall:
    """A call without state and lengths on contiguous arrays of one shape: checked once, then as short as can be."""

    def __init__(self, layer: RecurrentLayer, arguments: Arguments, kernels: Any, layers: list[Any]) -> None:
        width = layer.directions * layer.output_size
        steps, batch = arguments.steps, arguments.batch
        self._first = (batch, steps) if arguments.batch_first else (steps, batch)
        self._x_shape = (*self._first, layer.input_size)
        self._y_shape = (*self._first, width)
        self._state_shapes = layer.state_shapes(batch)
        self._unbatched, self._dtype = arguments.unbatched, layer.dtype
        self._stacked, self._has_c = len(layers) > 1, len(layer.states) == 2
        item = layer.dtype.itemsize
        strides = [
            places * size * item
            for size in (layer.input_size, width)
            for places in ((1, steps) if arguments.batch_first else (batch, 1))
        ]
        self._run = kernels.PlainCall(layers, steps, batch, strides).run

    def __call__(self, x: Array) -> tuple[Array, Any]:
        dtype = self._dtype
        y = np.empty(self._y_shape, dtype)
        between = HOST.lend(self._y_shape, dtype) if self._stacked else y
        h = np.empty(self._state_shapes[0], dtype)
        c = np.empty(self._state_shapes[1], dtype) if self._has_c else h
        if self._unbatched:
            self._run(x.reshape(self._x_shape), y, between, h, c)
            y, h, c = y[:, 0], h[:, 0], c[:, 0]
        else:
            self._run(x, y, between, h, c)
        return y, (h, c) if self._has_c else h


class Arguments:
    """A call's checked arguments: x as (T, B, I) whatever it came as, state arrays (L * D, B, ..), lengths (B,)."""

    def __init__(self, layer: RecurrentLayer, x: Any, state: Any, lengths: Any) -> None:
        self.plain = state is None and lengths is None and type(x) is np.ndarray and x.dtype is layer.dtype and x.flags.carray
        known = layer._known_shapes.get(x.shape) if self.plain else None
        if known is not None:
            self.__dict__.update(known)
        else:
            x = self._checked(layer, x, state, lengths)
        self.x = self.inside(x)

    def _checked(self, layer: RecurrentLayer, x: Any, state: Any, lengths: Any) -> Array:
        """x; fills in what calls with the same shape of x have in common, and all else."""
        given = checks.array("x", x, layer.dtype)
        self.place = place_of(given)
        checks.runs_on("x", layer.dtype, self.place)
        self.unbatched = given.ndim == 2
        letters = "T, I" if self.unbatched else "B, T, I" if layer.batch_first else "T, B, I"
        sizes = [None] * (1 if self.unbatched else 2)
        checks.shape("x", given, [*sizes, layer.input_size], letters)
        self.batch_first = layer.batch_first and not self.unbatched
        self.steps: int
        self.batch: int
        self.steps, self.batch, _ = self.inside(given).shape
        self.y_shape = (*given.shape[:-1], layer.directions * layer.output_size)
        self._dtype = layer.dtype
        self.state = layer.checked_state("state", state, self.batch, self.place, self.unbatched)
        self.lengths: Array | None = None
        if lengths is not None:
            if self.unbatched and np.ndim(lengths) == 0:
                lengths = (lengths if on_device(lengths) else np.asarray(lengths)).reshape(1)
            self.lengths = checks.lengths(lengths, self.batch, self.steps, self.place)
        self.plain = self.plain and self.batch > 0
        if self.plain:
            remember(layer._known_shapes, x.shape, self.__dict__.copy())
        return given

    def output(self, *, lent: bool = False) -> Array:
        """An array for y as (T, B, D * P), in the layout that the caller will see; zeros where no kernel will write.
        lent: of memory that calls use again."""
        if self.batch_first:
            return self._rows(self.batch, self.steps, lent).swapaxes(0, 1)
        return self._rows(self.steps, self.batch, lent)

    def between(self) -> Array:
        """An array for what stacked layers hand on, (T, B, D * P) without gaps, of memory that calls use again."""
        return self._rows(self.steps, self.batch, True)

    def _rows(self, first: int, second: int, lent: bool) -> Array:
        rows = (self.place.lend if lent else self.place.empty)((first, second, self.y_shape[-1]), self._dtype)
        if self.lengths is not None:
            rows[...] = 0
        return rows

    def inside(self, array: Array) -> Array:
        """An array in the layout of the caller's x as (T, B, n)."""
        return array[:, None] if self.unbatched else array.swapaxes(0, 1) if self.batch_first else array

    def as_given(self, y: Array) -> Array:
        """(T, B, n) in the layout of the caller's x."""
        return y[:, 0] if self.unbatched else y.swapaxes(0, 1) if self.batch_first else y
