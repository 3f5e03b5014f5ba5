"""`gpurnn.from_keras`: a live layer or a file."""

import os
from typing import Any

import numpy as np

from ...layers.make import Layer
from .files import read
from .objects import from_layer


@np.errstate(all="ignore")  # a caller's "raise" is not meant for the rounding of weights
def from_keras(
    layer_or_path: Any, name: str | None = None, *, recurrent_activation: str | None = None, precision: str | None = None
) -> Layer:
    """Makes a layer with the weights of a Keras one.

        lstm = gpurnn.from_keras(model.get_layer("lstm"))
        lstm = gpurnn.from_keras("model.keras", "lstm")

    Args:
        layer_or_path: a built Keras layer: LSTM, GRU, CuDNNLSTM, CuDNNGRU or a Bidirectional of one; or a file: a model or
            weights in HDF5 (`.h5`, `.hdf5`) by any Keras, or a `.keras` archive, read with h5py alone.
        name: which layer of a file that holds several.
        recurrent_activation: "sigmoid", for weights from a Keras before 2.3, whose default was another and whose weight
            files do not say.
        precision: of the layer's products, "bf16", "int8" or "tf32"; None or "float32" for that of the dtype.

    Returns a batch_first layer. A weight file without a model does not say go_backwards and merge_mode: forward and side by
    side are taken. A warning is logged of a layer behind Masking or Embedding(mask_zero=True): its call needs lengths
    (`gpurnn.interop.keras.lengths_of`). Raises ValueError with the reason for layers that cannot be represented,
    FileNotFoundError, TypeError for anything but a Keras layer or a path, NotImplementedError for options that are not built.
    """
    if recurrent_activation not in (None, "sigmoid"):
        raise ValueError(f"recurrent_activation: only 'sigmoid' can be represented, got {recurrent_activation!r}")
    if isinstance(layer_or_path, (str, os.PathLike)):
        return read(layer_or_path, name, recurrent_activation, precision)
    if name is not None:
        raise ValueError("name: it chooses a layer of a file; a layer has been given")
    return from_layer(layer_or_path, precision)
