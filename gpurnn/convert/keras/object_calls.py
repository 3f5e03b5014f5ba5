"""The calls of a live Keras layer by the model around it: with a mask, or with a state that the model holds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .config import refuse_state, warn_of_mask


def check_calls(layer: Any, label: str) -> None:
    """Refuses constant initial states, which a converted layer would lose; warns of masks."""
    nodes = list(getattr(layer, "_inbound_nodes", ()))
    for node in nodes:
        if any(not _symbolic(state) and np.any(_numpy(state)) for state in _states(node)):
            raise refuse_state(label)
    mask = next((_masking(node) for node in nodes if _masked(node)), None)
    if mask is not None:
        warn_of_mask(label, mask)


def _arguments(node: Any) -> tuple[Any, Any]:
    """Gives the arguments of one symbolic call, by position and by name. Keras 3 has them together, Keras 2 apart."""
    held = getattr(node, "arguments", None)
    return (node.call_args, node.call_kwargs) if held is None else (held.args, held.kwargs)


def _states(node: Any) -> Iterator[Any]:
    args, options = _arguments(node)
    given = options.get("initial_state", args[1] if len(args) > 1 else None)
    states = given if isinstance(given, (list, tuple)) else [given]
    yield from (state for state in states if state is not None)


def _symbolic(state: Any) -> bool:
    """Tells whether a state is another layer's output, or an input."""
    return type(state).__name__ == "KerasTensor"


def _numpy(state: Any) -> Any:
    return np.asarray(state.detach().cpu() if hasattr(state, "detach") else state)


def _masked(node: Any) -> bool:
    if _arguments(node)[1].get("mask") is not None:
        return True
    return any(getattr(one, "_keras_mask", None) is not None for one in getattr(node, "keras_inputs", ()))  # Keras 2


def _masking(node: Any) -> str:
    """Names the layer that a mask comes from."""
    seen, waiting = set(), [node]
    while waiting:
        for before in waiting.pop().parent_nodes:
            layer = getattr(before, "operation", None) or before.layer
            if type(layer).__name__ == "Masking" or getattr(layer, "mask_zero", False):
                return f"{type(layer).__name__} {layer.name!r}"
            if id(before) not in seen:
                seen.add(id(before))
                waiting.append(before)
    return "a mask that its call is given"
