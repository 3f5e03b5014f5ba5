"""A call of a layer, and what it would run."""

from __future__ import annotations

from typing import Any

from numpy import ndarray

from gpurnn_kernels.spec import Array

from . import state as states
from .arguments import Arguments
from .plain_call import PlainCall, for_plain_call
from .prepared import Prepared


def run(prepared: Prepared, x: Any, state: Any, lengths: Any) -> tuple[Array, Any]:
    """Gives y and the final state, in the layouts of x and of the state; see `LSTM.__call__`."""
    if state is None and lengths is None:
        usual = type(x) is ndarray and x.dtype is prepared.dtype and x.flags.carray
        given = x if usual else for_plain_call(x, prepared.dtype)
        if given is not None:
            plain = prepared.plain_calls.get(given.shape)
            if plain is not None:
                return plain(given)
    arguments = Arguments(prepared, x, state, lengths)
    description, place = prepared.description, arguments.place
    kernels = place.kernels
    layers = prepared.layers(kernels)
    with place.current():
        y = arguments.output()
        final = states.empty(description, arguments.batch, place)
        # stacked layers write y and one scratch array in turn, so that the last one writes y
        targets = [y, arguments.output(leased=True) if len(layers) > 1 else y]
        source = arguments.x
        for index, layer in enumerate(layers):
            out = targets[(len(layers) - 1 - index) % 2]
            initial, last = (states.of_layer(description, arrays, index) for arrays in (arguments.state, final))
            kernels.forward(layer, source, initial, arguments.lengths, out, last)
            source = out
    if arguments.plain:
        PlainCall(prepared, arguments, layers).stay()
    return arguments.as_given(y), states.as_given(final, arguments.unbatched)


class Plan:
    """The kernels that a call would run, and why: one text a layer in `layers`, all of them in `str()`; see `layer.plan`."""

    def __init__(self, layer: str, shape: tuple[int, ...], layers: list[str]) -> None:
        self.layers = layers
        self._head = f"{layer} on x {shape}"

    def __str__(self) -> str:
        return "\n".join([self._head, *(f"  layer {index}: {line}" for index, line in enumerate(self.layers))])

    __repr__ = __str__


def plan(prepared: Prepared, layer: str, x: Any, lengths: Any) -> Plan:
    """Plans a call; `layer` is the layer's repr."""
    arguments = Arguments(prepared, x, None, lengths)
    kernels = arguments.place.kernels
    with arguments.place.current():
        lines = [kernels.describe(one, arguments.x, arguments.lengths) for one in prepared.layers(kernels)]
    return Plan(layer, x.shape, lines)
