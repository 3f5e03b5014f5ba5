"""Gradients of a call by exact back-propagation through time, for `layer.vjp`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from gpurnn_kernels.spec import REDUCED, Array

from .. import checks
from . import state as states
from .arguments import Arguments
from .description import Description
from .prepared import Prepared

State = TypeVar("State")  # a pair of arrays (h, c) for an LSTM, an array for a GRU


class Gradients(NamedTuple, Generic[State]):
    """Gradients of a scalar loss with respect to x, the initial state and the parameters, in their shapes and dtypes.

    y, vjp = layer.vjp(x)
    grads = vjp(dy)
    grads.x, grads.state, grads.params["layers.0.W_x"]
    """

    x: Array  # as x; 0 past lengths
    state: State  # as the returned state
    params: Mapping[str, Array]  # named as `layer.params`


class VJP(Generic[State]):
    """The vector-Jacobian product of one call: `vjp(dy, dstate=None)` gives its `Gradients`, as often as it is called.

    Copies of it are itself, since nothing changes it. It cannot be pickled.
    """

    def __init__(self, call: _Call, saved: list[Any], given: list[Array], lengths: Array | None) -> None:
        """Takes what each layer's forward pass left for its backward pass (`saved`), and the initial state (`given`)."""
        self._call, self._saved, self._given, self._lengths = call, saved, given, lengths

    def __call__(self, dy: Array | None, dstate: State | None = None) -> Gradients[State]:
        """Gives the gradients of the scalar sum(y * dy) + sum(state * dstate).

        Args:
            dy: as y, (T, B, D*P), (B, T, D*P) with batch_first, or (T, D*P) without a batch; None for zeros.
            dstate: as the returned state; None for zeros.

        Raises ValueError for wrong shapes, TypeError for wrong types and dtypes.
        """
        with self._call.arguments.place.current():
            return self._gradients(dy, dstate)

    def _gradients(self, dy: Array | None, dstate: Any) -> Gradients[State]:
        prepared, arguments, layers = self._call
        layer, place = prepared.description, arguments.place
        d = _checked_dy(layer, arguments, dy)
        dfinal = states.checked(layer, "dstate", dstate, arguments.batch, place, arguments.unbatched)
        dinitial = states.empty(layer, arguments.batch, place)
        found: dict[str, Array] = {}
        for index in reversed(range(len(layers))):
            initial, dlast, dfirst = (states.of_layer(layer, arrays, index) for arrays in (self._given, dfinal, dinitial))
            got = place.kernels.backward(layers[index], self._saved[index], initial, self._lengths, d, dlast, dfirst)
            d = got.x
            for prefix, arrays in zip(layer.prefixes[index], got.parameters, strict=True):
                found |= {prefix + name: array for name, array in arrays.items()}
        assert d is not None
        dx = place.contiguous(arguments.as_given(d))
        return Gradients(dx, states.as_given(dinitial, arguments.unbatched), prepared.gradients(found))

    def __copy__(self) -> VJP[State]:
        return self

    def __deepcopy__(self, memo: Any) -> VJP[State]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a vjp holds what its call computed, in this process's memory, and cannot be pickled: "
            "pickle the layer, x, state and lengths, and call layer.vjp(x, state, lengths) where the gradients are wanted"
        )


class _Call(NamedTuple):
    """A call whose gradients may be asked for."""

    prepared: Prepared
    arguments: Arguments
    layers: list[Any]  # the backend's


def vjp(prepared: Prepared, x: Any, state: Any, lengths: Any) -> tuple[Any, VJP[Any]]:
    """Gives the call's result and its `VJP`; see `LSTM.vjp`."""
    precision = prepared.description.precision
    if precision in REDUCED:
        raise NotImplementedError(
            f"precision {precision!r} has no gradients: layer.with_precision(None) has those of the same parameters"
        )
    arguments = Arguments(prepared, x, state, lengths)
    description, place = prepared.description, arguments.place
    kernels = place.kernels
    layers = prepared.layers(kernels)
    with place.current():
        # the caller may change what was given, and y, before the gradients are asked for: theirs are copies
        lengths = None if arguments.lengths is None else arguments.lengths.copy()
        given = [
            place.zeros(shape, description.dtype) if array is None else array.copy()
            for array, shape in zip(arguments.state, description.state_shapes(arguments.batch), strict=True)
        ]
        final = states.empty(description, arguments.batch, place)
        out = arguments.output(leased=True)
        source, saved = arguments.x, []
        x_stays = source.strides[-1] != source.itemsize
        if x_stays:
            source = source.copy()  # kernels copy rows as a whole
        for index, one in enumerate(layers):
            y_stays = index < len(layers) - 1
            y = arguments.between() if y_stays else out
            initial, last = (states.of_layer(description, arrays, index) for arrays in (given, final))
            stays = {"x_stays": x_stays or index > 0, "y_stays": y_stays}
            saved.append(kernels.forward(one, source, initial, lengths, y, last, keep=True, **stays))
            source = y
    gradients: VJP[Any] = VJP(_Call(prepared, arguments, layers), saved, given, lengths)
    return (arguments.as_given(out), states.as_given(final, arguments.unbatched)), gradients


def _checked_dy(layer: Description, arguments: Arguments, dy: Any) -> Array | None:
    """Gives dy as (T, B, D * P) with its units side by side."""
    if dy is None:
        return None
    checked = checks.array("dy", dy, layer.dtype, arguments.place)
    if checked.shape != arguments.y_shape:
        rows = "T" if arguments.unbatched else "B, T" if arguments.batch_first else "T, B"
        checks.shape("dy", checked, arguments.y_shape, f"{rows}, D*{'P' if layer.proj_size else 'H'}")
    checked = arguments.inside(checked)
    return checked if checked.strides[-1] == checked.itemsize else arguments.place.contiguous(checked)
