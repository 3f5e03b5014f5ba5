"""Layers in files: safetensors, with the constructor's arguments as JSON in the metadata.

Format "1" has all parameters in the layer's dtype, format "2" the weights in the layer's precision.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.forks import forks_wait_for
from gpurnn_kernels.spec import REDUCED, Array

from ..atomic import new_file
from . import storage
from .description import KINDS, Description, Kind, described

FORMAT, STORED_FORMAT = "1", "2"
_KEY, _FORMAT_KEY = "gpurnn", "gpurnn_format"
SAFETENSORS = threading.RLock()  # of who calls safetensors, which takes locks of its own when it does something first
forks_wait_for(SAFETENSORS)


class Content(NamedTuple):
    """The content of a layer's file."""

    description: Description
    params: dict[str, Any]  # arrays, and weights that are quantised
    extra: dict[str, Array]


def save(path: str | os.PathLike[str], description: Description, arrays: Mapping[str, Any]) -> None:
    """Writes a layer's file whole, or not at all (see `new_file`): its parameters, with more arrays among them or without.

    Raises ValueError for weights that the layer's precision has no numbers for.
    """
    text = json.dumps({"layer": description.kind, "arguments": description.configuration()})
    if description.precision in REDUCED:
        data = storage.encoded(description, arrays, {_FORMAT_KEY: STORED_FORMAT, _KEY: text})
    else:
        # safetensors writes sliced and Fortran-ordered arrays wrong
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with SAFETENSORS:
            from safetensors.numpy import save as encode

            data = encode(whole, metadata={_FORMAT_KEY: FORMAT, _KEY: text})
    with new_file(path) as file:
        file.write(data)


def read(path: str | os.PathLike[str], extra: tuple[str, ...] = ()) -> Content:
    """Reads a layer's file that must hold the arrays named `extra`, too.

    Raises FileNotFoundError for a missing file, ValueError for anything else that is wrong with it. Sizes are checked
    against the file's tensors before anything is allocated.
    """
    source = Path(path)
    with _opened(source) as file:
        return _read(source, file, extra)


@contextmanager
def _opened(source: Path) -> Iterator[Any]:
    if not source.exists():
        raise FileNotFoundError(f"no such file: {source}")
    if not source.is_file():
        raise ValueError(f"{source}: expected a safetensors file, got a folder or device")
    with SAFETENSORS:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(source, framework="numpy") as file:
                yield file
        except SafetensorError as error:
            raise ValueError(f"{source}: not a safetensors file, or damaged: {error}") from None


def is_layer(path: str | os.PathLike[str]) -> bool:
    """Tells whether `save` wrote a safetensors file. Raises FileNotFoundError, and ValueError for other files."""
    with _opened(Path(path)) as file:
        return _KEY in (file.metadata() or {})


def tensors(path: str | os.PathLike[str]) -> dict[str, storage.Tensor]:
    """Gives the tensors of a safetensors file by their names. Raises FileNotFoundError, and ValueError for other files."""
    with _opened(Path(path)) as file:
        return {name: _tensor(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118


def _read(source: Path, file: Any, extra: tuple[str, ...]) -> Content:
    metadata = file.metadata() or {}
    if _KEY not in metadata:
        raise ValueError(f"{source}: a safetensors file, but no gpurnn layer (no {_KEY!r} in its metadata)")
    version = metadata.get(_FORMAT_KEY)
    if version not in (FORMAT, STORED_FORMAT):
        raise ValueError(
            f"{source}: expected format {FORMAT!r} or {STORED_FORMAT!r}, got {version!r}: a newer gpurnn may know it"
        )
    kind, arguments = _metadata(source, metadata[_KEY])
    names = set(file.keys())
    absent = [name for name in extra if name not in names]
    if absent:
        raise ValueError(f"{source}: missing tensors {', '.join(absent)}")
    names -= set(extra)
    try:
        description = described(kind, arguments)
        # shapes are made only where the number of layers can agree with the number of tensors
        if description.num_layers > len(names):
            raise ValueError(f"{len(names)} tensors do not belong to {kind} with {description.configuration()}")
        wanted = _wanted(description, version)
        if set(wanted) != names:
            raise ValueError(f"tensors {sorted(names)} do not belong to {kind} with {description.configuration()}")
        for name, tensor in wanted.items():
            _check_tensor(name, _tensor(file.get_slice(name)), tensor)
        if version == FORMAT:
            params = {name: file.get_tensor(name) for name in wanted}
        else:
            params = storage.read(source, file, description)
    except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
        raise ValueError(f"{source}: {error}") from None
    return Content(description, params, {name: file.get_tensor(name) for name in extra})


def _metadata(source: Path, text: str) -> tuple[Kind, dict[str, Any]]:
    """Gives the kind of layer and the constructor's arguments that a file names."""
    try:
        description = json.loads(text)
        name, arguments = description["layer"], dict(description["arguments"])
        known = name in set(KINDS)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{source}: its metadata describe no gpurnn layer") from None
    if not known:
        raise ValueError(
            f"{source}: expected a layer of the kinds {', '.join(KINDS)}, got {name!r}: a newer gpurnn may know it"
        )
    return name, arguments


def _wanted(description: Description, version: str) -> dict[str, storage.Tensor]:
    """Gives the tensors that a file of a format holds."""
    if version == FORMAT:
        kind = storage.DTYPE_NAMES[description.dtype.name]
        return {name: storage.Tensor(kind, shape) for name, shape in description.shapes.items()}
    if description.precision not in REDUCED:
        raise ValueError(f"format {version!r}: expected a precision {' or '.join(REDUCED)}, got {description.precision}")
    return storage.expected(description)


def _tensor(tensor: Any) -> storage.Tensor:
    return storage.Tensor(str(tensor.get_dtype()), tuple(tensor.get_shape()))


def _check_tensor(name: str, found: storage.Tensor, wanted: storage.Tensor) -> None:
    if found.shape != wanted.shape:
        raise ValueError(f"{name}: expected shape {wanted.shape}, got {found.shape}")
    if found.kind != wanted.kind:
        raise ValueError(f"{name}: expected {wanted.kind}, got {found.kind}")
