"""Weights of reduced precision in files: bfloat16, or 8-bit integers with a scale for each row.

NumPy has no bfloat16, so that the NumPy functions of safetensors cannot take it: such files are written here, and bfloat16
tensors are read here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.quantised import MOST_SCALE, Quantised, as_bf16, check_scales, from_bf16, quantised
from gpurnn_kernels.spec import REDUCED, WEIGHTS, Array

from .description import Description

DTYPE_NAMES = {  # safetensors' names by NumPy's, and bfloat16's
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"},
    **{"int8": "I8", "int32": "I32", "int64": "I64"},
}
SCALES = ".scales"  # behind a weight's name: its rows' scales


class Tensor(NamedTuple):
    """A tensor in a file."""

    kind: str  # safetensors' name of the dtype
    shape: tuple[int, ...]


def is_stored(description: Description, name: str) -> bool:
    """Tells whether a parameter is stored with the layer's precision, not in its dtype."""
    return description.precision in REDUCED and name in description.shapes and name.rpartition(".")[2] in WEIGHTS


def expected(description: Description) -> dict[str, Tensor]:
    """Gives the tensors of a layer with a reduced precision, by their names."""
    found: dict[str, Tensor] = {}
    for name, shape in description.shapes.items():
        if not is_stored(description, name):
            found[name] = Tensor("F32", shape)
        elif description.precision == "bf16":
            found[name] = Tensor("BF16", shape)
        else:
            found |= {name: Tensor("I8", shape), name + SCALES: Tensor("F32", shape[:1])}
    return found


def encoded(description: Description, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Gives the bytes of a safetensors file. Raises ValueError for weights that have no integers."""
    tensors: dict[str, tuple[str, Array]] = {}
    for name, array in arrays.items():
        if not is_stored(description, name):
            tensors[name] = DTYPE_NAMES[array.dtype.name], array
        elif description.precision == "bf16":
            tensors[name] = "BF16", as_bf16(array)
        else:
            one = array if isinstance(array, Quantised) else quantised(array)
            bad = np.flatnonzero(~np.isfinite(one.scales))
            if bad.size:
                raise ValueError(f"{name}: row {bad[0]} has a NaN or an infinity, for which there are no 8-bit integers")
            large = np.flatnonzero(np.abs(one.scales) >= MOST_SCALE)
            if large.size:
                raise ValueError(f"{name}: row {large[0]}: expected a scale below 2**120, got {one.scales[large[0]]}")
            tensors |= {name: ("I8", one.values), name + SCALES: ("F32", one.scales)}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, at = [], 0
    # large elements first: each tensor then lies on a boundary of its elements
    for name, (kind, array) in sorted(tensors.items(), key=lambda item: (-item[1][1].dtype.itemsize, item[0])):
        parts.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def read(source: Path, file: Any, description: Description) -> dict[str, Any]:
    """Reads the parameters of a layer with a reduced precision, whose tensors have been checked.

    Raises ValueError for scales that no weights have.
    """
    halves = [name for name in description.shapes if is_stored(description, name) and description.precision == "bf16"]
    wide = read_bf16(source, {name: description.shapes[name] for name in halves})
    found: dict[str, Any] = {}
    for name in description.shapes:
        if name in wide:
            found[name] = wide[name]
        elif is_stored(description, name):
            found[name] = Quantised(file.get_tensor(name), file.get_tensor(name + SCALES))
            # conversion turns the sense of a GRU's z, whose rows come first
            turned = description.hidden_size if description.kind == "GRU" else 0
            check_scales(name + SCALES, found[name].scales, turned)
        else:
            found[name] = file.get_tensor(name)
    return found


def read_bf16(source: Path, shapes: Mapping[str, Iterable[int]]) -> dict[str, Array]:
    """Reads bfloat16 tensors as float32 from a safetensors file that `safe_open` has taken. Raises ValueError if it is
    another file by now."""
    if not shapes:
        return {}
    try:
        with source.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
            found = {}
            for name, shape in shapes.items():
                begin, end = header[name]["data_offsets"]
                count = math.prod(shape)
                if header[name]["dtype"] != "BF16" or end - begin != 2 * count:
                    raise ValueError(f"{name} has changed")
                file.seek(8 + size + begin)
                found[name] = from_bf16(np.frombuffer(file.read(2 * count), "<u2").reshape(tuple(shape)))
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError, struct.error, OSError) as error:
        raise ValueError(f"it has changed while it was read: {error}") from None
    return found
