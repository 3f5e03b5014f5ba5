"""Gradients of a call, by exact back-propagation through time: what `layer.vjp` gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from gpurnn_kernels.spec import Array

from .. import checks
from .call import Arguments

if TYPE_CHECKING:
    from .base import Prepared, RecurrentLayer


class Gradients(NamedTuple):
    """Of a scalar loss, with respect to what a call was given, in the same shapes and dtypes."""

    x: Array
    state: Any  # a pair for an LSTM, an array for a GRU
    params: Mapping[str, Array]  # named as `layer.params`


class VJP:
    """The vector-Jacobian product of one call: `vjp(dy, dstate=None)` gives its `Gradients`, as often as it is called.

    Copies of it are itself, since nothing changes it. It cannot be pickled.
    """

    def __init__(self, call: _Call, kept: list[Any], given: list[Array], lengths: Array | None) -> None:
        """kept: what each layer's forward pass left for its backward pass; given: the initial state."""
        self._call, self._kept, self._given, self._lengths = call, kept, given, lengths

    def __call__(self, dy: Array | None, dstate: Any = None) -> Gradients:
        with self._call.arguments.place.current():
            return self._gradients(dy, dstate)

    def _gradients(self, dy: Array | None, dstate: Any) -> Gradients:
        layer, prepared, arguments, layers = self._call
        place = arguments.place
        d = _checked_dy(layer, arguments, dy)
        dfinal = layer.checked_state("dstate", dstate, arguments.batch, place, arguments.unbatched)
        dinitial = layer.empty_state(arguments.batch, place)
        found: dict[str, Array] = {}
        names = layer._directions
        for index in reversed(range(len(layers))):
            initial, dlast, dfirst = (layer.rows_of(arrays, index) for arrays in (self._given, dfinal, dinitial))
            got = place.kernels.backward(layers[index], self._kept[index], initial, self._lengths, d, dlast, dfirst)
            d = got.x
            for (_, prefix), arrays in zip(names[index], got.parameters, strict=True):
                found |= {prefix + name: array for name, array in arrays.items()}
        assert d is not None
        dx = place.contiguous(arguments.as_given(d))
        return Gradients(dx, layer.state_as_given(dinitial, arguments.unbatched), prepared.gradients(found))

    def __copy__(self) -> VJP:
        return self

    def __deepcopy__(self, memo: Any) -> VJP:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a vjp holds what its call computed, in this process's memory, and cannot be pickled: "
            "pickle the layer, x, state and lengths, and call layer.vjp(x, state, lengths) where the gradients are wanted"
        )


class _Call(NamedTuple):
    """A call whose gradients may be asked for."""

    layer: RecurrentLayer
    prepared: Prepared
    arguments: Arguments
    layers: list[Any]  # the backend's


def vjp(layer: RecurrentLayer, x: Any, state: Any, lengths: Any) -> tuple[Any, VJP]:
    """See `RecurrentLayer.vjp`."""
    arguments = Arguments(layer, x, state, lengths)
    prepared, place = layer._prepared, arguments.place
    kernels = place.kernels
    layers = prepared.layers(kernels)
    with place.current():
        # the caller may change what was given, and y, before the gradients are asked for: theirs are copies
        lengths = None if arguments.lengths is None else arguments.lengths.copy()
        given = [
            place.zeros(shape, layer.dtype) if array is None else array.copy()
            for array, shape in zip(arguments.state, layer.state_shapes(arguments.batch), strict=True)
        ]
        final = layer.empty_state(arguments.batch, place)
        out = arguments.output(lent=True)
        source, kept = arguments.x, []
        x_stays = source.strides[-1] != source.itemsize
        if x_stays:
            source = source.copy()  # kernels copy rows as a whole
        for index, one in enumerate(layers):
            y_stays = index < len(layers) - 1
            y = arguments.between() if y_stays else out
            initial, last = layer.rows_of(given, index), layer.rows_of(final, index)
            stays = {"x_stays": x_stays or index > 0, "y_stays": y_stays}
            kept.append(kernels.forward(one, source, initial, lengths, y, last, keep=True, **stays))
            source = y
    gradients = VJP(_Call(layer, prepared, arguments, layers), kept, given, lengths)
    return (arguments.as_given(out), layer.state_as_given(final, arguments.unbatched)), gradients


def _checked_dy(layer: RecurrentLayer, arguments: Arguments, dy: Any) -> Array | None:
    """dy as (T, B, D * P) with its units side by side."""
    if dy is None:
        return None
    checked = checks.array("dy", dy, layer.dtype, arguments.place)
    if checked.shape != arguments.y_shape:
        rows = "T" if arguments.unbatched else "B, T" if arguments.batch_first else "T, B"
        checks.shape("dy", checked, arguments.y_shape, f"{rows}, D*{'P' if layer.proj_size else 'H'}")
    checked = arguments.inside(checked)
    return checked if checked.strides[-1] == checked.itemsize else arguments.place.contiguous(checked)
