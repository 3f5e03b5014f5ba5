"""The parameters of a layer, and its weights packed for the backends that have run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpurnn_kernels.quantised import Quantised
from gpurnn_kernels.spec import Array

from ..backend import HOST, Place
from . import coupling, parameters
from .description import Description, Kind, described


class Prepared:
    """One set of parameters of a layer, and its packed layers in each backend that has asked. Replaced, never changed.

    Calls, gradients and streams take it instead of the layer, so that they finish with the parameters they started with.
    """

    def __init__(
        self, description: Description, given: Mapping[str, Any], previous: Prepared | None = None, place: Place = HOST
    ) -> None:
        """Takes copies of the given arrays. Weights may be quantised: an int8 layer keeps their integers.

        place: a device whose arrays they are. They stay there, uncopied, and the layer is for calls there alone.
        previous: the parameters that these replace, whose layers hand on scratch memory to the new ones.
        Raises ValueError for missing or extra names and wrong shapes, TypeError for wrong types and dtypes.
        """
        self.description = description
        self.dtype = description.dtype
        self.arrays = parameters.checked(given, description.shapes, description.dtype, place)
        integers = {name: one for name, one in given.items() if isinstance(one, Quantised)}
        kept = integers if description.precision == "int8" else {}
        self.integers: dict[str, Quantised] = {name: one.frozen() for name, one in kept.items()}
        self._layers: dict[Any, list[Any]] = {}
        self._previous: dict[Any, list[Any]] = dict(previous._layers or previous._previous) if previous else {}
        # what calls have found out: a shape's short way with these parameters, and a shape's checks with any
        self.plain_calls: dict[tuple[int, ...], Callable[[Array], tuple[Array, Any]]] = {}
        self.known_shapes: dict[tuple[int, ...], dict[str, Any]] = previous.known_shapes if previous else {}

    def renewed(self, given: Mapping[str, Any]) -> Prepared:
        """Gives the same layer with other parameters; raises as the constructor does."""
        return Prepared(self.description, given, self)

    @property
    def given(self) -> dict[str, Any]:
        """The parameters as the constructor takes them: integers where weights have them."""
        return self.arrays | self.integers

    def layers(self, kernels: Any) -> list[Any]:
        """Gives the backend's prepared layers, made at first use."""
        found = self._layers.get(kernels)
        if found is None:
            specs, names = self.description.specs, self.description.names
            before = self._previous.pop(kernels, None) or [None] * len(specs)
            made = [
                kernels.prepare(directions, [self._direction(one) for one in named], layer)
                for directions, named, layer in zip(specs, names, before, strict=True)
            ]
            # of two threads that come first, one packs in vain: a lock might stay held for ever in a forked child
            found = self._layers.setdefault(kernels, made)
        return found

    def _direction(self, names: dict[str, str]) -> dict[str, Any]:
        """Gives one direction's arrays and integers, by their names without the prefix."""
        found = {short: self.integers.get(name, self.arrays[name]) for short, name in names.items()}
        return coupling.tied(found) if self.description.input_forget else found

    def gradients(self, found: Mapping[str, Array]) -> dict[str, Array]:
        """Gives the parameters' gradients from those that the kernels give, named and ordered as the parameters."""
        own = {name: found[name] for name in self.arrays}
        return coupling.untied(own) if self.description.input_forget else own

    def __copy__(self) -> Prepared:
        return self

    def __deepcopy__(self, memo: Any) -> Prepared:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickled, (self.description.kind, self.description.configuration(), self.given)


def unpickled(kind: Kind, configuration: Mapping[str, Any], arrays: Mapping[str, Array]) -> Prepared:
    """Makes prepared parameters from what a pickle holds, which another version may have written.

    Raises as `described` and `Prepared` do.
    """
    return Prepared(described(kind, configuration), arrays)
