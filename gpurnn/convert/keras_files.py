"""Keras's files: HDF5 weights and models of every layout, and `.keras` archives, read with h5py alone."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .check import log
from .found import Found, choose
from .keras_config import Description, describe
from .keras_hdf5 import Stored, stored_layers, text
from .keras_weights import cell_of

MODEL, WEIGHTS = "config.json", "model.weights.h5"
EXPANSION = {MODEL: 200, WEIGHTS: 16}  # how many times its size in the archive a member may have: more is no model


class Opened(NamedTuple):
    layers: list[Stored]
    configs: dict[str, list[Any]] | None  # class name and configuration, by the layer's name; None: no model in the file
    version: str | None  # None: of a Keras whose default is sigmoid


def read(path: Any, name: str | None, recurrent_activation: str | None) -> Any:
    """See `from_keras`."""
    from .keras import build

    with opened(path) as file:
        try:
            chosen = choose(file.layers, name, lambda one: one.names, _found, "name=...")
            label = f"{path}: {chosen.names[0]}"
            description = _description(file, chosen, label, recurrent_activation)
            cells = [cell for arrays in chosen.read() if (cell := cell_of(arrays)) is not None]
        except ValueError as error:
            message = str(error)
            raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from None
        return build(description, cells, label)


def list_keras(path: Any) -> list[Found]:
    """The recurrent layers in a file."""
    with opened(path) as file:
        return [_found(one) for one in file.layers]


def _found(one: Stored) -> Found:
    layout = one.layouts[0]
    form = {None: "", True: "reset_after=True", False: "reset_after=False"}[layout.reset_after]
    return Found(one.names[0], layout.title, layout.input_size, layout.hidden_size, 1, len(one.layouts), form)


def _description(file: Opened, chosen: Stored, label: str, recurrent_activation: str | None) -> Description:
    bidirectional = len(chosen.layouts) == 2
    if file.configs is not None:
        named = [config for one in chosen.names for config in file.configs.get(one, ())]
        # a nested model's name serves for the one layer inside it
        found = [(class_name, config) for class_name, config in named if "layers" not in config]
        described = {describe(class_name, config, label) for class_name, config in found}
        if len(described) > 1:
            raise ValueError(f"{label}: the model has several layers of that name, which differ")
        if described:
            return described.pop()
        log.warning("%s: the file's model names no such layer; its weights alone are read", label)
    if not chosen.layouts[0].title.startswith("CuDNN") and recurrent_activation is None and _before_sigmoid(file.version):
        raise ValueError(
            f"{label}: weights from Keras {file.version}, whose default recurrent_activation was hard_sigmoid; the file does "
            'not say what it is. If it is sigmoid, pass recurrent_activation="sigmoid"; hard_sigmoid cannot be represented'
        )
    log.info("%s: weights without a model: forward in time, directions side by side, tanh", label)
    return Description(bidirectional=bidirectional)


def _before_sigmoid(version: str | None) -> bool:
    """hard_sigmoid was the default before Keras 2.3; TensorFlow 2.0 and 2.1 call theirs 2.2.4-tf and cannot be told apart."""
    if version is None:
        return False
    numbers = [int(part) for part in re.findall(r"\d{1,6}", version)[:2]]
    return not numbers or numbers < [2, 3]


@contextmanager
def opened(path: Any) -> Iterator[Opened]:
    """Raises FileNotFoundError, and ValueError for anything else that is wrong with the file."""
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no such file: {source}")
    if not source.is_file():
        raise ValueError(f"{source}: expected a file, got a folder or device")
    if zipfile.is_zipfile(source):
        weights, model = _members(source)
        with _hdf5(source, weights) as file:
            yield Opened(_layers(source, file, archive=True), _configs(source, model), None)
        return
    with _hdf5(source, source) as file:
        model = file.attrs.get("model_config")
        weights = file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file
        new = any(key.replace("\\", "/").split("/")[0] in ("layers", "_layer_checkpoint_dependencies") for key in weights)
        version = weights.attrs.get("keras_version", file.attrs.get("keras_version"))
        known = None if new else "1" if version is None else text(version)
        yield Opened(_layers(source, weights, archive=new), None if model is None else _configs(source, text(model)), known)


def _layers(source: Path, group: Any, archive: bool) -> list[Stored]:
    try:
        return stored_layers(group, archive)
    except (KeyError, OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"{source}: damaged: {error}") from None


@contextmanager
def _hdf5(source: Path, data: Any) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{source}: reading HDF5 needs h5py: pip install h5py") from None
    try:
        file = h5py.File(data, "r")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{source}: not an HDF5 file, or damaged: {error}") from None
    with file:
        yield file


def _members(source: Path) -> tuple[io.BytesIO, str]:
    """The weights and the model of a `.keras` archive."""
    try:
        with zipfile.ZipFile(source) as archive:
            return io.BytesIO(_member(source, archive, WEIGHTS)), _member(source, archive, MODEL).decode()
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"{source}: a damaged archive: {error}") from None


def _member(source: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{source}: an archive, but not Keras's: no {name} in it") from None
    if info.file_size > EXPANSION[name] * info.compress_size or info.compress_size > source.stat().st_size:
        raise ValueError(f"{source}: {name} claims {info.file_size} bytes, packed into {info.compress_size}")
    return archive.read(info)


def _configs(source: Path, model: str) -> dict[str, list[Any]]:
    """Every layer's class and configuration, by name, nested ones included."""
    found: dict[str, list[Any]] = {}
    try:
        waiting = [json.loads(model)]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: its model's configuration is damaged: {error}") from None
    while waiting:
        one = waiting.pop()
        if not isinstance(one, Mapping):
            continue
        config = one.get("config")
        layers = config.get("layers") if isinstance(config, Mapping) else config
        if isinstance(layers, list):
            waiting += reversed(layers)
        if isinstance(config, Mapping):
            name = str(config.get("name", one.get("name")))
            found.setdefault(name, []).append((str(one.get("class_name")), config))
            if isinstance(config.get("layer"), Mapping) and one.get("class_name") != "Bidirectional":
                waiting.append(config["layer"])
    return found
