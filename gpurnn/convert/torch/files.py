"""PyTorch's weights in files, of `torch.save` or safetensors: tensors alone; nothing that is pickled beside them runs."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...layers.files import SAFETENSORS
from ...layers.make import Layer
from ...layers.storage import read_bf16
from ..found import Found, named
from .modules import described, find, from_torch, is_weight

DEPTH = 8  # levels of dicts in dicts that are read: checkpoints keep their state dict under a name
AGAIN = 100_000  # entries at most of dicts that stand at more than one place, at the places after the first
NAME = 1024  # characters of a tensor's name at most
SHARED = 16  # times the file's size is what recurrent layers may hold: layers that share weights are counted apart


def from_file(path: Any, prefix: str = "", precision: str | None = None) -> Layer:
    """Makes a layer out of a file that is a state dict, or a checkpoint that has one inside; see `from_torch`.

    Raises FileNotFoundError for a missing file, ValueError for anything else that is wrong with it.
    """
    with named(path):
        return from_torch(_state(Path(path)), prefix=prefix, precision=precision)


def list_torch(path: Any) -> list[Found]:
    """Lists the recurrent layers in a file by their prefixes; raises as `from_file` does."""
    return [described(prefix, sizes) for prefix, sizes in find(_state(Path(path))).items()]


def _state(source: Path) -> dict[str, Any]:
    """Reads every tensor in a file, by its name; names of nested dicts are joined by dots."""
    if not source.exists():
        raise FileNotFoundError(f"no such file: {source}")
    if not source.is_file():
        raise ValueError(f"{source}: expected a file of torch.save, got a folder or device")
    if source.suffix.lower() == ".safetensors":
        return _safetensors(source)
    _check_archive(source)
    try:
        import torch
    except ImportError:
        raise ImportError(f"{source}: reading PyTorch's files needs torch: pip install torch") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, of how it reads quantised tensors
            found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle brings about
        raise ValueError(f"{source}: {_reason(error)}") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{source}: expected a state dict, got {type(found).__name__}")
    return _tensors(source, found, torch)


def _tensors(source: Path, found: Mapping[Any, Any], torch: Any) -> dict[str, Any]:
    """Gives the tensors in dicts in dicts. An object that a pickle holds once can stand at any number of places."""
    state: dict[str, Any] = {}
    size, again = 0, 0
    seen: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [("", found, 0)]
    while waiting:
        start, mapping, depth = waiting.pop()
        again += len(mapping) if id(mapping) in seen else 0
        seen.add(id(mapping))
        if again > AGAIN:
            raise ValueError(f"{source}: its dicts stand in each other at more than {AGAIN} places")
        for key, value in mapping.items():
            if not isinstance(key, (str, int)) or len(name := f"{start}{key}") > NAME:
                continue
            if isinstance(value, Mapping) and value and depth < DEPTH:
                waiting.append((f"{name}.", value, depth + 1))
            elif isinstance(value, torch.Tensor) and _held(value):
                state[name] = value
                size += value.numel() * value.element_size() if is_weight(name) else 0
    if size > SHARED * source.stat().st_size:
        raise ValueError(f"{source}: its recurrent layers claim {size} bytes, in a file of {source.stat().st_size} bytes")
    return state


def _safetensors(source: Path) -> dict[str, Any]:
    """Reads a safetensors file as arrays, without PyTorch. Tensors that belong to no recurrent layer are named, not read."""
    with SAFETENSORS:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(source, framework="numpy") as file:
                names = list(file.keys())
                shapes = {name: file.get_slice(name).get_shape() for name in names if is_weight(name)}
                halves = {name: shape for name, shape in shapes.items() if file.get_slice(name).get_dtype() == "BF16"}
                found = {name: file.get_tensor(name) if name in shapes.keys() - halves else None for name in names}
                return found | read_bf16(source, halves)
        except SafetensorError as error:
            raise ValueError(f"{source}: not a safetensors file, or damaged: {error}") from None
        except (TypeError, AttributeError, ValueError) as error:  # what NumPy has no dtype for
            raise ValueError(f"{source}: {error}") from None


def _check_archive(source: Path) -> None:
    """Refuses archives that torch.save did not write: it packs nothing, and packed members could grow to any size."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        hint = "or from before PyTorch 1.6: save it with a later one"
        raise ValueError(f"{source}: not a file of torch.save, or damaged, {hint}") from None
    stored = all(one.compress_type == zipfile.ZIP_STORED and one.file_size == one.compress_size for one in members)
    if not stored or sum(one.file_size for one in members) > source.stat().st_size:
        raise ValueError(f"{source}: an archive, but none that torch.save wrote")


def _reason(error: Exception) -> str:
    """Gives an error's text without PyTorch's advice to run what is pickled."""
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)|TorchScript", text)
    if named and named[1] == "torch.ScriptObject":
        return (
            "packed weights of a quantised module (torch.ScriptObject), not tensors alone; nothing of them was run; load the "
            "model with PyTorch, and hand it to gpurnn.from_torch"
        )
    if named or "Weights only load failed" in text:
        what = (
            "a TorchScript model"
            if named and not named[1]
            else f"pickled objects ({named[1]})"
            if named
            else "pickled objects"
        )
        return f"{what}, not tensors alone; nothing of them was run; save the state dict: torch.save(module.state_dict(), ...)"
    return f"damaged: {text.strip().partition(chr(10))[0]}"


def _held(tensor: Any) -> bool:
    """Tells whether each number of a tensor has a place of its own in the file: an expanded tensor can claim any size."""
    plain = tensor.device.type == "cpu" and str(tensor.layout) == "torch.strided"
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
