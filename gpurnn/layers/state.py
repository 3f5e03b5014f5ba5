"""States of a layer, an LSTM's (h, c) or a GRU's h, as users hand them in and as kernels take them."""

from typing import Any

from gpurnn_kernels.spec import Array

from .. import checks
from ..backend import Place
from .description import Description


def checked(
    description: Description, name: str, state: Any, batch: int, place: Place, unbatched: bool = False
) -> list[Array | None]:
    """Gives the state's arrays as (L * D, B, P) and (L * D, B, H), contiguous; None each when there is none.

    name: the argument that the state was, for errors. Raises ValueError for wrong shapes, TypeError for wrong types.
    """
    states = description.states
    if state is None:
        return [None] * len(states)
    arrays = [state]
    if len(states) == 2:
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name}: expected a pair (h, c), got {type(state).__name__}")
        arrays = list(state)
    found: list[Array | None] = []
    for letter, value, (count, _, size) in zip(states, arrays, description.state_shapes(batch), strict=True):
        letters = "P" if letter == "h" and description.proj_size else "H"
        label = f"{name}'s {letter}" if len(states) == 2 else name
        array = checks.array(label, value, description.dtype, place)
        if unbatched:
            checks.shape(label, array, [count, size], f"L*D, {letters}")
            array = array[:, None]
        else:
            checks.shape(label, array, [count, batch, size], f"L*D, B, {letters}")
        found.append(place.contiguous(array))
    return found


def as_given(arrays: list[Array], unbatched: bool) -> Any:
    """Gives the arrays as users see them: a pair for an LSTM, one array for a GRU."""
    shaped = [array[:, 0] if unbatched else array for array in arrays]
    return tuple(shaped) if len(shaped) == 2 else shaped[0]


def empty(description: Description, batch: int, place: Place) -> list[Array]:
    """Gives arrays to be filled by kernels, (L * D, B, P) and (L * D, B, H)."""
    return [place.empty(shape, description.dtype) for shape in description.state_shapes(batch)]


def of_layer(description: Description, arrays: list[Array] | list[Array | None], index: int) -> list[Any]:
    """Gives the part of layer `index`, (D, B, ..), of arrays (L * D, B, ..)."""
    if description.num_layers == 1:
        return arrays
    part = slice(index * description.directions, (index + 1) * description.directions)
    return [None if array is None else array[part] for array in arrays]
