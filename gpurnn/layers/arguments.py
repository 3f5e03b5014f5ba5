"""A call's arguments, checked: whatever layout they came in, kernels take them in one."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from .. import checks
from ..backend import on_device, place_of
from .prepared import Prepared
from .state import checked as checked_state

KNOWN_SHAPES = 8  # shapes of x that a layer keeps in mind; the ninth clears them


class Arguments:
    """A call's checked arguments: x as (T, B, I) whatever it came as, state arrays (L * D, B, ..), lengths (B,)."""

    def __init__(self, prepared: Prepared, x: Any, state: Any, lengths: Any) -> None:
        given: Array | None = None
        if state is None and lengths is None:
            usual = type(x) is np.ndarray and x.dtype is prepared.dtype and x.flags.carray
            given = x if usual else checks.ready(x, prepared.dtype)
        self.plain = given is not None
        known = None if given is None else prepared.known_shapes.get(given.shape)
        if known is not None:
            x = given
            self.__dict__.update(known)
        else:
            x = self._checked(prepared, x, state, lengths)
        self.x = self.inside(x)

    def _checked(self, prepared: Prepared, x: Any, state: Any, lengths: Any) -> Array:
        """Gives x checked; fills in what calls with the same shape of x have in common, and all else."""
        layer = prepared.description
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
        self.x_shape, self.y_shape = given.shape, (*given.shape[:-1], layer.directions * layer.output_size)
        self._dtype = layer.dtype
        self.state = checked_state(layer, "state", state, self.batch, self.place, self.unbatched)
        self.lengths: Array | None = None
        if lengths is not None:
            if self.unbatched and np.ndim(lengths) == 0:
                lengths = (lengths if on_device(lengths) else np.asarray(lengths)).reshape(1)
            self.lengths = checks.lengths(lengths, self.batch, self.steps, self.place)
        self.plain = self.plain and self.batch > 0
        if self.plain:
            if len(prepared.known_shapes) >= KNOWN_SHAPES:
                prepared.known_shapes.clear()
            prepared.known_shapes[given.shape] = self.__dict__.copy()
        return given

    def output(self, *, leased: bool = False) -> Array:
        """Gives an array for y as (T, B, D * P), in the layout that the caller will see; zeros where no kernel will write.

        leased: it comes from memory that calls use again.
        """
        if self.batch_first:
            return self._rows(self.batch, self.steps, leased).swapaxes(0, 1)
        return self._rows(self.steps, self.batch, leased)

    def between(self) -> Array:
        """Gives an array for the output of one stacked layer, (T, B, D * P) without gaps, of memory that calls use again."""
        return self._rows(self.steps, self.batch, True)

    def _rows(self, first: int, second: int, leased: bool) -> Array:
        rows = (self.place.lease if leased else self.place.empty)((first, second, self.y_shape[-1]), self._dtype)
        if self.lengths is not None:
            rows[...] = 0
        return rows

    def inside(self, array: Array) -> Array:
        """Gives an array in the layout of the caller's x as (T, B, n)."""
        return array[:, None] if self.unbatched else array.swapaxes(0, 1) if self.batch_first else array

    def as_given(self, y: Array) -> Array:
        """Gives an array (T, B, n) in the layout of the caller's x."""
        return y[:, 0] if self.unbatched else y.swapaxes(0, 1) if self.batch_first else y
