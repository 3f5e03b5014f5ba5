"""Layers in files: safetensors, with the constructor's arguments as JSON in the metadata."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpurnn_kernels.forks import forks_wait_for

from .atomic import new_file

if TYPE_CHECKING:
    from .layer import RecurrentLayer

FORMAT = "1"
_DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}  # safetensors' names
SAFETENSORS = threading.RLock()  # of who calls safetensors, which takes locks of its own when it does something first
forks_wait_for(SAFETENSORS)
_KEY, _FORMAT_KEY = "gpurnn", "gpurnn_format"


def save(layer: RecurrentLayer, path: Any, extra: dict[str, Any] | None = None) -> None:
    """Writes a layer: whole, or not at all; see `new_file`. `extra`: more arrays to keep beside its parameters."""
    description = {"layer": layer._kind().__name__, "arguments": layer.configuration()}
    # safetensors writes sliced and Fortran-ordered arrays wrong
    arrays = {name: np.ascontiguousarray(array) for name, array in ({**layer.params, **(extra or {})}).items()}
    with SAFETENSORS:
        from safetensors.numpy import save as encode

        data = encode(arrays, metadata={_FORMAT_KEY: FORMAT, _KEY: json.dumps(description)})
    with new_file(path) as file:
        file.write(data)


def load(path: Any) -> Any:
    """The `LSTM` or `GRU` that `save` wrote to a file.

    Raises FileNotFoundError for a missing file, ValueError for anything else that is wrong with it. Sizes are checked
    against the file's tensors before anything is allocated.
    """
    return load_with_extra(path, ())[0]


def load_with_extra(path: Any, extra: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """A layer, and the further arrays of these names that the file must hold."""
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


def is_layer(path: Any) -> bool:
    """Whether a safetensors file is one of `save`. Raises FileNotFoundError, and ValueError if it is none of safetensors."""
    with _opened(Path(path)) as file:
        return _KEY in (file.metadata() or {})


def _read(source: Path, file: Any, extra: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    metadata = file.metadata() or {}
    if _KEY not in metadata:
        raise ValueError(f"{source}: a safetensors file, but no gpurnn layer (no {_KEY!r} in its metadata)")
    if metadata.get(_FORMAT_KEY) != FORMAT:
        raise ValueError(
            f"{source}: expected format {FORMAT!r}, got {metadata.get(_FORMAT_KEY)!r}: a newer gpurnn may know it"
        )
    kind, arguments = _described(source, metadata[_KEY])
    names = set(file.keys())
    absent = [name for name in extra if name not in names]
    if absent:
        raise ValueError(f"{source}: missing tensors {', '.join(absent)}")
    names -= set(extra)
    try:
        layer = kind.__new__(kind)
        layer._set_up(**arguments)
        expected = layer._shapes if _fits(arguments, names) else {}
        if set(expected) != names:
            raise ValueError(f"tensors {sorted(names)} do not belong to {kind.__name__} with {arguments}")
        for name, shape in expected.items():
            tensor = file.get_slice(name)
            found = tuple(tensor.get_shape())
            if found != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {found}")
            if tensor.get_dtype() != _DTYPES[layer.dtype.name]:
                raise ValueError(f"{name}: expected {_DTYPES[layer.dtype.name]}, got {tensor.get_dtype()}")
        layer._start({name: file.get_tensor(name) for name in expected})
    except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
        raise ValueError(f"{source}: {error}") from None
    return layer, {name: file.get_tensor(name) for name in extra}


def _described(source: Path, text: str) -> tuple[Any, dict[str, Any]]:
    """The class and the constructor's arguments that a file names."""
    from .gru import GRU
    from .lstm import LSTM

    classes: dict[Any, Any] = {"LSTM": LSTM, "GRU": GRU}
    try:
        description = json.loads(text)
        name, arguments = description["layer"], dict(description["arguments"])
        kind = classes.get(name)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{source}: its metadata describe no gpurnn layer") from None
    if kind is None:
        raise ValueError(
            f"{source}: expected a layer of the kinds {', '.join(classes)}, got {name!r}: a newer gpurnn may know it"
        )
    try:
        return kind, kind.completed(arguments)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _fits(arguments: dict[str, Any], names: set[str]) -> bool:
    """Whether the number of layers agrees with the number of tensors: names are made only then."""
    layers: int = arguments["num_layers"]
    return layers <= len(names)
