"""Keras's files, read with h5py alone: HDF5 weights and models of every layout, and `.keras` archives."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ...layers.make import Layer
from ..check import log
from ..found import Found, choose, named
from . import hdf5
from .build import build
from .config import Description, describe, refuse_state, warn_of_mask
from .model import TEXT, Model
from .stored import Stored, stored_layers
from .weights import cell_of

MODEL, WEIGHTS = "config.json", "model.weights.h5"
DAMAGE = (AttributeError, IndexError, KeyError, OSError, OverflowError, RuntimeError, TypeError)  # h5py raises any of them
SAME = 100  # layers of one name at most: a layer may stand in several models of a model
EXPANSION = {MODEL: 200, WEIGHTS: 16}  # how many times its size in the archive a member may have: more is no model


class Opened(NamedTuple):
    reader: hdf5.Reader
    layers: list[Stored]
    model: Model | None  # None: no model in the file
    version: str | None  # None: of a Keras whose default is sigmoid


def read(path: Any, name: str | None, recurrent_activation: str | None, precision: str | None) -> Layer:
    """Converts a layer of a file; see `from_keras`."""
    with named(path), opened(path) as file:
        chosen = choose(file.layers, name, lambda one: one.names, _found, "name=...")
        label = f"{path}: {chosen.names[0]}"
        with _damage(path):
            description = _description(file, chosen, label, recurrent_activation)
            arrays = chosen.read(file.reader)
        return build(description, [cell for one in arrays if (cell := cell_of(one)) is not None], label, precision)


def list_keras(path: Any) -> list[Found]:
    """Lists the recurrent layers in a file. Raises FileNotFoundError, and ValueError for anything else wrong with it."""
    with named(path), opened(path) as file:
        return [_found(one) for one in file.layers]


def _found(one: Stored) -> Found:
    layout = one.layouts[0]
    form = {None: "", True: "reset_after=True", False: "reset_after=False"}[layout.reset_after]
    return Found(one.names[0], layout.title, layout.input_size, layout.hidden_size, 1, len(one.layouts), form)


def _description(file: Opened, chosen: Stored, label: str, recurrent_activation: str | None) -> Description:
    bidirectional = len(chosen.layouts) == 2
    if file.model is not None:
        indices = [index for one in dict.fromkeys(chosen.names) for index in file.model.named(one)]
        # a nested model's name serves for the one layer inside it
        found = [index for index in indices if file.model.layers[index].inside is None]
        if len(found) > SAME:
            raise ValueError(f"{label}: the model has {len(found)} layers of that name, expected at most {SAME}")
        layers = [file.model.layers[index] for index in found]
        described = {describe(layer.class_name, layer.config, label) for layer in layers}
        if len(described) > 1:
            raise ValueError(f"{label}: the model has several layers of that name, which differ")
        if described:
            _check_calls(file.model, found, label)
            return described.pop()
        log.warning("%s: the file's model names no such layer; its weights alone are read", label)
    if not chosen.layouts[0].title.startswith("CuDNN") and recurrent_activation is None and _before_sigmoid(file.version):
        raise ValueError(
            f"{label}: weights from Keras {file.version}, whose default recurrent_activation was hard_sigmoid; the file does "
            'not say what it is. If it is sigmoid, pass recurrent_activation="sigmoid"; hard_sigmoid cannot be represented'
        )
    log.info("%s: weights without a model: forward in time, directions side by side, tanh", label)
    return Description(bidirectional=bidirectional)


def _check_calls(model: Model, indices: list[int], label: str) -> None:
    """Refuses what the model hands to the layer and a layer does not keep; warns of masks."""
    if any(model.keeps_state(index) for index in indices):
        raise refuse_state(label)
    mask = next((mask for index in indices if (mask := model.mask_of(index))), None)
    if mask is not None:
        warn_of_mask(label, mask)


def _before_sigmoid(version: str | None) -> bool:
    """Tells whether hard_sigmoid may have been the default, as before Keras 2.3; TensorFlow 2.0 and 2.1 say 2.2.4-tf, too."""
    if version is None:
        return False
    numbers = [int(part) for part in re.findall(r"\d{1,6}", version)[:2]]
    return not numbers or numbers < [2, 3]


@contextmanager
def opened(path: Any) -> Iterator[Opened]:
    """Opens a file. Raises FileNotFoundError, and ValueError for anything else that is wrong with it."""
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no such file: {source}")
    if not source.is_file():
        raise ValueError(f"{source}: expected a file, got a folder or device")
    if zipfile.is_zipfile(source):
        weights, model = _members(source)
        with hdf5.opened(source, weights) as reader:
            with _damage(source):
                layers = stored_layers(reader, reader.root, archive=True)
                found = Opened(reader, layers, Model(model), None)
            yield found
        return
    with hdf5.opened(source, source) as reader:
        with _damage(source):
            found = _whole(reader)
        yield found


def _whole(reader: hdf5.Reader) -> Opened:
    """Opens a file that is HDF5 alone."""
    root = reader.root
    inside = "layer_names" not in root.attrs and reader.has(root, "model_weights")
    weights = reader.child(root, "model_weights") if inside else root
    if not hasattr(weights, "keys"):
        raise ValueError("model_weights is no group")
    new = any(key.replace("\\", "/").split("/")[0] in ("layers", "_layer_checkpoint_dependencies") for key in weights)
    version = reader.text(weights, "keras_version") or reader.text(root, "keras_version")
    model = reader.text(root, "model_config")
    layers = stored_layers(reader, weights, archive=new)
    return Opened(reader, layers, None if model is None else Model(model), None if new else version or "1")


@contextmanager
def _damage(source: Any) -> Iterator[None]:
    """Turns the errors that h5py and nonsense in a file bring about into ValueError."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{source}: damaged: {error}") from None


def _members(source: Path) -> tuple[io.BytesIO, str]:
    """Reads the weights and the model of a `.keras` archive."""
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
    if name == MODEL and info.file_size > TEXT:
        raise ValueError(f"{source}: {name} claims {info.file_size} bytes, expected at most {TEXT}")
    if info.file_size > EXPANSION[name] * info.compress_size or info.compress_size > source.stat().st_size:
        raise ValueError(f"{source}: {name} claims {info.file_size} bytes, packed into {info.compress_size}")
    return archive.read(info)
