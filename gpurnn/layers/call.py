"""One call of a layer: its arguments, checked; and, for a shape that has been seen before, the short way."""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from gpurnn_kernels.spec import Array

from .. import checks
from ..backend import HOST, on_device, place_of

if TYPE_CHECKING:
    from .base import Prepared, RecurrentLayer

READ_ONLY_BYTES = 1 << 16  # of a read-only x that is copied for a plain call: more takes longer to copy than the long way
KNOWN_SHAPES = 8  # of x, that a layer keeps in mind
PLAIN_BYTES = 32 << 20  # of all layers' plain calls
PLAIN_LEAST = 1 << 14  # that one of them counts as at least: its own objects


def for_plain_call(x: Any, dtype: np.dtype[Any]) -> Array | None:
    """x as a `PlainCall` takes it, contiguous and writeable, or a copy where x is small and read-only; else None."""
    found = checks.ready(x, dtype)
    if found is None or found.flags.writeable:
        return found
    return found.copy() if found.nbytes <= READ_ONLY_BYTES else None


class PlainCall:
    """A call without state and lengths on contiguous arrays of one shape: checked once, then as short as can be."""

    def __init__(self, layer: RecurrentLayer, arguments: Arguments, prepared: Prepared, layers: list[Any]) -> None:
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
        self._chain = arguments.place.kernels.PlainCall(layers, steps, batch, strides)
        self._run = self._chain.run
        self._home = weakref.ref(prepared)
        self._shape = arguments.x_shape
        self.used = True

    def __call__(self, x: Array) -> tuple[Array, Any]:
        self.used = True
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

    @property
    def bytes(self) -> int:
        """Bytes that the call holds."""
        return PLAIN_LEAST + self._chain.bytes

    def stay(self) -> None:
        """Calls with this shape of x and these parameters go the short way from now on."""
        home = self._home()
        if home is not None:
            home.plain[self._shape] = self
            PLAIN_CALLS.add(self)

    def leave(self) -> None:
        """Calls with this shape of x and these parameters go the long way again."""
        home = self._home()
        if home is not None:
            home.plain.pop(self._shape, None)


class PlainCalls:
    """The plain calls that are ready, of all layers. Of more than so many bytes, those leave that were not called for longest:
    at each look at them, all that were called since the last one count as later than those that were not."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._calls: dict[int, weakref.ref[PlainCall]] = {}  # by number, the first to leave first
        self._numbers = itertools.count()
        self._next_look = 0  # with so many

    def add(self, call: PlainCall) -> None:
        self._calls[next(self._numbers)] = weakref.ref(call)
        if len(self._calls) >= self._next_look:
            self.look()

    def look(self) -> None:
        """Calls leave, if all together hold too much."""
        found = [(number, reference()) for number, reference in list(self._calls.items())]
        for number, _ in found:
            self._calls.pop(number, None)
        alive = [(number, call) for number, call in found if call is not None]
        alive.sort(key=lambda one: one[1].used)
        held = sum([call.bytes for _, call in alive])
        for number, call in alive:
            call.used = False
            if held > self.limit:
                held -= call.bytes
                call.leave()
            else:
                self._calls[number] = weakref.ref(call)
        self._next_look = len(self._calls) * 9 // 8


PLAIN_CALLS = PlainCalls(PLAIN_BYTES)


class Arguments:
    """A call's checked arguments: x as (T, B, I) whatever it came as, state arrays (L * D, B, ..), lengths (B,)."""

    def __init__(self, layer: RecurrentLayer, x: Any, state: Any, lengths: Any) -> None:
        given: Array | None = None
        if state is None and lengths is None:
            usual = type(x) is np.ndarray and x.dtype is layer.dtype and x.flags.carray
            given = x if usual else checks.ready(x, layer.dtype)
        self.plain = given is not None
        known = None if given is None else layer._known_shapes.get(given.shape)
        if known is not None:
            x = given
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
        self.x_shape, self.y_shape = given.shape, (*given.shape[:-1], layer.directions * layer.output_size)
        self._dtype = layer.dtype
        self.state = layer.checked_state("state", state, self.batch, self.place, self.unbatched)
        self.lengths: Array | None = None
        if lengths is not None:
            if self.unbatched and np.ndim(lengths) == 0:
                lengths = (lengths if on_device(lengths) else np.asarray(lengths)).reshape(1)
            self.lengths = checks.lengths(lengths, self.batch, self.steps, self.place)
        self.plain = self.plain and self.batch > 0
        if self.plain:
            if len(layer._known_shapes) >= KNOWN_SHAPES:
                layer._known_shapes.clear()
            layer._known_shapes[given.shape] = self.__dict__.copy()
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
