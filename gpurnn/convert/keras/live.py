"""Keras: LSTM and GRU layers, their Bidirectional wrappers, and weight files of any version."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from .. import check, gates
from .calls import check_calls
from .config import Description, describe
from .weights import Cell, cell_of


@np.errstate(all="ignore")  # a caller's "raise" is not meant for the rounding of weights
def from_keras(layer_or_path: Any, name: str | None = None, *, recurrent_activation: str | None = None) -> Any:
    """A layer with the weights of a Keras one.

    Args:
        layer_or_path: a built Keras layer: LSTM, GRU, CuDNNLSTM, CuDNNGRU or a Bidirectional of one; or a file: a model or
            weights in HDF5 (`.h5`, `.hdf5`) by any Keras, or a `.keras` archive, read with h5py alone.
        name: which layer of a file that holds several.
        recurrent_activation: "sigmoid", for weights from a Keras before 2.3, whose default was another and whose weight
            files do not say.

    Gives a batch_first layer that returns all outputs and the state. A weight file without a model does not say go_backwards
    and merge_mode: forward and side by side are taken. A warning is logged of a layer behind Masking
    or Embedding(mask_zero=True): its call needs lengths (`gpurnn.interop.keras.lengths_of`). Raises ValueError for what cannot
    be represented, with the reason; FileNotFoundError; TypeError for what is no Keras layer; NotImplementedError for options
    that are not built.
    """
    if recurrent_activation not in (None, "sigmoid"):
        raise ValueError(f"recurrent_activation: only 'sigmoid' can be represented, got {recurrent_activation!r}")
    if isinstance(layer_or_path, (str, os.PathLike)):
        from .files import read

        return read(layer_or_path, name, recurrent_activation)
    if name is not None:
        raise ValueError("name: it chooses a layer of a file; a layer has been given")
    return _from_layer(layer_or_path)


def build(description: Description, cells: Sequence[Cell], label: str) -> Any:
    """The layer of one cell, or of two for both directions, forward first."""
    if len(cells) != (2 if description.bidirectional else 1):
        raise ValueError(f"{label}: expected the weights of {1 + description.bidirectional} directions, got {len(cells)}")
    first = cells[0]
    reset_after = first.reset_after
    if first.kind == "GRU" and reset_after is None:  # no bias: its shape would tell
        reset_after = description.reset_after
        if reset_after is None:
            raise ValueError(
                f"{label}: a GRU without a bias: its weights do not tell reset_after; convert the layer itself, or a file "
                "that holds the model"
            )
    if description.kind not in (None, first.kind):
        raise ValueError(f"{label}: the model says {description.kind}, the weights are those of an {first.kind}")
    if None not in (description.reset_after, first.reset_after) and description.reset_after != first.reset_after:
        raise ValueError(f"{label}: the model says reset_after={description.reset_after}, the shapes of the weights otherwise")
    hidden, inputs = first.hidden_size, first.input_size
    for other in cells[1:]:
        if other[1:5] != first[1:5]:
            raise ValueError(f"{label}: the two directions differ in kind or size: {first.title} and {other.title}")
        if (other.source.b_x is None) != (first.source.b_x is None):
            raise ValueError(f"{label}: one direction has a bias, the other has none")
    dtypes = {array.dtype for cell in cells for array in cell.source if array is not None}
    if len(dtypes) != 1:
        raise ValueError(f"{label}: expected weights of one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    configuration = {
        **{"input_size": inputs, "hidden_size": hidden, "bias": first.source.b_x is not None, "batch_first": True},
        **{"bidirectional": len(cells) == 2, "reset_after": bool(reset_after), "dtype": dtypes.pop()},
    }
    params = [gates.direction(first.kind, gates.KERAS, cell.source, bool(reset_after)) for cell in cells]
    check.dropped(label, description.dropout)
    return gates.layer(first.kind, configuration, [params])


def _from_layer(layer: Any) -> Any:
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
    converted = build(description, cells, label)
    check_calls(layer, label)
    # Keras 3 on PyTorch multiplies matrices of float64 in float32
    check.agree(converted, _runner(layer, description, check.scale(converted)), label, np.float32)
    return converted


def _runner(layer: Any, description: Description, factor: float) -> check.Run:
    """A copy of the layer, its weights times a factor, that returns all there is: the user's own is left alone."""
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
