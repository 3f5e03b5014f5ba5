"""Layers made of what files and converters hold: the constructor's arguments and the parameters."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from .. import checks
from ..backend import HOST, Place
from . import files, parameters
from .description import ARGUMENTS, Kind
from .gru import GRU
from .lstm import LSTM

Layer = LSTM | GRU


def load(path: str | os.PathLike[str], *, precision: str | None = None) -> Layer:
    """Reads the layer that `save` wrote to a file.

        layer.save("layer.safetensors")
        layer = gpurnn.load("layer.safetensors")

    Args:
        precision: "bf16", "int8" or "tf32", as the constructor takes it, or "float32"; None for the saved layer's.

    Raises FileNotFoundError for a missing file, ValueError for anything else that is wrong with it, and for a precision that
    is none of these or not the layer's to have. Sizes are checked against the file's tensors before anything is allocated.
    """
    return load_with_extra(path, (), precision)[0]


def load_with_extra(
    path: str | os.PathLike[str], extra: tuple[str, ...], precision: str | None = None
) -> tuple[Layer, dict[str, Array]]:
    """Reads a layer, and the further arrays of these names that the file must hold; raises as `load` does."""
    found = files.read(path, extra)
    configuration = found.description.configuration()
    configuration["precision"] = checks.asked(precision, configuration["precision"])
    return layer_of(found.description.kind, configuration, found.params), found.extra


def layer_of(kind: Kind, configuration: Mapping[str, Any], params: Mapping[str, Array], place: Place = HOST) -> Layer:
    """Makes a layer of its constructor's arguments, those that are missing by default, and its parameters.

    place: as `with_params` takes it.

    Raises ValueError, TypeError and NotImplementedError for what no layer can have.
    """
    cls = LSTM if kind == "LSTM" else GRU
    return cls.with_params(configuration, params, place)


def converted(kind: Kind, configuration: dict[str, Any], directions: list[list[dict[str, Any]]], place: Place = HOST) -> Layer:
    """Makes a layer of a framework's options, those that are missing by default, and of parameters per layer, per direction.
    Matrices may be quantised.

    place: as `with_params` takes it.

    Options that the kind has not got may be there if they are off. Raises NotImplementedError for options that are not built,
    ValueError and TypeError for what no layer can have.
    """
    if np.dtype(configuration["dtype"]) == np.float16:
        # such a layer runs on a GPU only: nothing could check it here
        raise NotImplementedError("float16 weights are not converted; convert the model to float32 first")
    names = ARGUMENTS[kind]
    lost = [name for name, value in configuration.items() if value and name not in names]
    if lost:
        raise ValueError(f"gpurnn.{kind} has no {', '.join(lost)}")
    own = {name: value for name, value in configuration.items() if name in names}
    two, backward = bool(own.get("bidirectional")), bool(own.get("reverse"))
    prefixes = [prefix for _, _, prefix in parameters.prefixes(len(directions), two, backward)]
    flat = [one for found in directions for one in found]
    arrays = {prefix + name: array for prefix, found in zip(prefixes, flat, strict=True) for name, array in found.items()}
    return layer_of(kind, own, arrays, place)
