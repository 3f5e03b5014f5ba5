"""The parameters of a layer: their names and shapes, initial values, and the check of what a user hands in."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.random import default_rng

from gpurnn_kernels.quantised import Quantised
from gpurnn_kernels.spec import Array, Spec

from .. import checks
from ..backend import HOST, Place


class Params(Mapping[str, Array]):
    """A read-only mapping of names to arrays. Its copies and pickles are dictionaries."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self._arrays | dict(other)

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(other) | self._arrays

    def copy(self) -> dict[str, Array]:
        """Gives a dictionary of the same arrays."""
        return dict(self._arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._arrays,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._arrays!r})"


def prefixes(num_layers: int, bidirectional: bool, reverse: bool) -> Iterator[tuple[int, bool, str]]:
    """Gives, in the state's order, each direction's layer, whether it is the reverse one, and its parameters' prefix."""
    for layer in range(num_layers):
        if not reverse:
            yield layer, False, f"layers.{layer}."
        if reverse or bidirectional:
            yield layer, True, f"layers.{layer}.reverse."


def shapes(spec: Spec, bias: bool) -> dict[str, tuple[int, ...]]:
    """Gives the shapes of one direction's parameters by their names without the prefix."""
    rows = spec.gates * spec.hidden_size
    found: dict[str, tuple[int, ...]] = {"W_x": (rows, spec.input_size), "W_h": (rows, spec.output_size)}
    if bias:
        found["b"] = (rows,)
        found |= dict.fromkeys(spec.shape.biases, (spec.hidden_size,))
    if spec.proj_size:
        found["W_p"] = (spec.proj_size, spec.hidden_size)
    if spec.peepholes:
        found["peephole"] = (3 * spec.hidden_size,)
    return found


def draw(expected: Mapping[str, tuple[int, ...]], hidden_size: int, dtype: np.dtype[Any], seed: Any) -> dict[str, Array]:
    """Draws parameters of these shapes, uniform in +-1/sqrt(H), as PyTorch draws them."""
    generator = default_rng(seed)
    bound = hidden_size**-0.5
    with np.errstate(all="ignore"):  # float16 has no normal numbers for the smallest
        return {name: generator.uniform(-bound, bound, shape).astype(dtype) for name, shape in expected.items()}


def checked(
    given: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any], place: Place = HOST
) -> Params:
    """Gives read-only copies of the given arrays, in the expected order; a device's arrays as they are. Quantised weights
    come as the numbers that they stand for.

    Raises ValueError for missing or extra names and wrong shapes, TypeError for anything but arrays of `dtype` at `place`.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"parameters: expected a mapping of names to arrays, got {type(given).__name__}")
    missing = [name for name in expected if name not in given]
    extra = [str(name) for name in given if name not in expected]
    if missing or extra:
        parts = [f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unknown", extra)) if names]
        raise ValueError(f"parameters: {'; '.join(parts)}; expected {', '.join(expected)}")
    found = {}
    for name, shape in expected.items():
        one = given[name]
        value = checks.array(name, one.floats() if isinstance(one, Quantised) else one, dtype)
        checks.beside(name, value, place, "the layer's other parameters")
        if value.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
        if place.device is None:
            value = np.array(value, dtype, order="C", copy=True)
            value.flags.writeable = False
        found[name] = value
    return Params(found)
