"""Live Keras layers: LSTM, GRU and their Bidirectional wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from ...layers.make import Layer
from .. import check
from .build import build
from .config import Description, describe
from .object_calls import check_calls
from .weights import cell_of


def from_layer(layer: Any, precision: str | None = None) -> Layer:
    """Converts a built layer; see `from_keras`."""
    module = type(layer).__module__.partition(".")[0]
    if module not in ("keras", "tf_keras", "tensorflow") or not hasattr(layer, "get_weights"):
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"from_keras: expected a Keras layer or a path, got {kind}")
    label = f"{type(layer).__name__} {layer.name!r}"
    description = describe(type(layer).__name__, layer.get_config(), label)
    if not getattr(layer, "built", True):
        raise ValueError(f"{label}: it has no weights yet; build it first: layer.build((None, None, input_size))")
    parts = [layer.forward_layer, layer.backward_layer] if description.bidirectional else [layer]
    cells = []
    for part in parts:
        compute, stored = part.compute_dtype, part.variable_dtype
        if compute != stored:
            raise ValueError(
                f"{label}: it computes in {compute} with weights in {stored}; give it the dtype policy {stored!r}"
            )
        weights = [np.asarray(array) for array in part.get_weights()]
        cell = cell_of(weights)
        if cell is None:
            raise ValueError(f"{label}: weights of no LSTM or GRU: shapes {', '.join(str(array.shape) for array in weights)}")
        cells.append(cell)
    converted = build(description, cells, label, precision)
    check_calls(layer, label)
    # Keras 3 on PyTorch multiplies matrices of float64 in float32
    check.agree(converted, _runner(layer, description, check.scale(converted)), label, np.float32)
    return converted


def _runner(layer: Any, description: Description, factor: float) -> check.Run:
    """Gives a copy of the layer, its weights times a factor, that returns all there is: the user's own is left alone."""
    config = dict(layer.get_config())
    inner = ("layer", "backward_layer") if description.bidirectional else ()
    whole = {"return_sequences": True, "return_state": True, "stateful": False}
    if inner:
        # the wrapper would round the outputs to a dtype of its own
        config |= {"merge_mode": "concat", "dtype": layer.forward_layer.compute_dtype}
        for key in inner:
            if isinstance(config.get(key), Mapping):
                config[key] = {**config[key], "config": {**config[key]["config"], **whole}}
    else:
        config |= whole
    copy = type(layer).from_config(config)
    parts = [layer.forward_layer, layer.backward_layer] if description.bidirectional else [layer]
    inputs = parts[0].get_weights()[0].shape[0]
    copy.build((None, None, inputs))
    copy.set_weights([factor * array for part in parts for array in part.get_weights()])

    def run(x: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        by_row = [part[row] for row in range(len(parts)) for part in state]
        y, *final = copy(x.swapaxes(0, 1), initial_state=by_row, training=False)
        rows = [_numpy(one) for one in final]
        return _numpy(y).swapaxes(0, 1), [np.stack(rows[index :: len(state)]) for index in range(len(state))]

    return run


def _numpy(tensor: Any) -> Array:
    value = tensor.detach().cpu() if hasattr(tensor, "detach") else tensor
    return np.asarray(value)
