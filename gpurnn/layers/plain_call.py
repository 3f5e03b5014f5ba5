"""The short way of a call whose shape has been seen before: without state and lengths, on the CPU."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from .. import checks
from ..backend import HOST
from .arguments import Arguments
from .prepared import Prepared

READ_ONLY_BYTES = 1 << 16  # a read-only x is copied for a plain call; beyond, the copy takes longer than the long way
PLAIN_BYTES = 32 << 20  # bytes that all layers' plain calls may hold
PLAIN_LEAST = 1 << 14  # bytes that one of them counts as at least: its own objects


def for_plain_call(x: Any, dtype: np.dtype[Any]) -> Array | None:
    """Gives x as a `PlainCall` takes it, contiguous and writeable, or a copy where x is small and read-only; else None."""
    found = checks.ready(x, dtype)
    if found is None or found.flags.writeable:
        return found
    return found.copy() if found.nbytes <= READ_ONLY_BYTES else None


class PlainCall:
    """A call without state and lengths on contiguous arrays of one shape: checked once, then as short as can be."""

    def __init__(self, prepared: Prepared, arguments: Arguments, layers: list[Any]) -> None:
        description = prepared.description
        width = description.directions * description.output_size
        steps, batch = arguments.steps, arguments.batch
        self._first = (batch, steps) if arguments.batch_first else (steps, batch)
        self._x_shape = (*self._first, description.input_size)
        self._y_shape = (*self._first, width)
        self._state_shapes = description.state_shapes(batch)
        self._unbatched, self._dtype = arguments.unbatched, prepared.dtype
        self._stacked, self._has_c = len(layers) > 1, len(description.states) == 2
        item = prepared.dtype.itemsize
        strides = [
            places * size * item
            for size in (description.input_size, width)
            for places in ((1, steps) if arguments.batch_first else (batch, 1))
        ]
        self._stack_call = arguments.place.kernels.PlainCall(layers, steps, batch, strides)
        self._run = self._stack_call.run
        self._home = weakref.ref(prepared)
        self._shape = arguments.x_shape
        self.used = True

    def __call__(self, x: Array) -> tuple[Array, Any]:
        self.used = True
        dtype = self._dtype
        y = np.empty(self._y_shape, dtype)
        between = HOST.lease(self._y_shape, dtype) if self._stacked else y
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
        """The bytes that the call holds."""
        return PLAIN_LEAST + self._stack_call.bytes

    def stay(self) -> None:
        """Makes calls with this shape of x and these parameters go the short way from now on."""
        home = self._home()
        if home is not None:
            home.plain_calls[self._shape] = self
            PLAIN_CALLS.add(self)

    def leave(self) -> None:
        """Makes calls with this shape of x and these parameters go the long way again."""
        home = self._home()
        if home is not None:
            home.plain_calls.pop(self._shape, None)


class PlainCalls:
    """The plain calls of all layers that are ready, at most `limit` bytes of them.

    Where they hold more, those leave that were not called for longest: at each look at them, all that were called since the
    last look count as later than those that were not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._calls: dict[int, weakref.ref[PlainCall]] = {}  # by number, the first to leave first
        self._numbers = itertools.count()
        self._next_look = 0  # the number of calls at which to look

    def add(self, call: PlainCall) -> None:
        """Counts a call in."""
        self._calls[next(self._numbers)] = weakref.ref(call)
        if len(self._calls) >= self._next_look:
            self.look()

    def look(self) -> None:
        """Lets calls leave if all together hold too much."""
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
