"""PyTorch's weights of fewer bits: dynamically quantised modules, what their state dicts hold, quantised tensors, halves."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from ...layers.description import Kind
from ..integers import Weights

_PACKED = re.compile(r"(.*?)(?:_all_weight_values\.(\d{1,9})\.param|_packed_weight_(ih|hh))")
HALVES = ("float16", "bfloat16")


def kinds(cells: bool = True) -> list[tuple[Any, Kind]]:
    """Gives the classes of dynamically quantised modules: none before PyTorch has imported them."""
    dynamic = sys.modules.get("torch.ao.nn.quantized.dynamic")
    names: list[tuple[str, Kind]] = [("LSTM", "LSTM"), ("GRU", "GRU")]
    names += [("LSTMCell", "LSTM"), ("GRUCell", "GRU")] if cells else []
    return [(getattr(dynamic, name), kind) for name, kind in names if hasattr(dynamic, name)]


def is_cell(x: Any) -> bool:
    """Tells whether a dynamically quantised module is a cell."""
    return not any(isinstance(x, cls) for cls, _ in kinds(cells=False))


def weights_of(x: Any) -> dict[str, Any]:
    """Gives a dynamically quantised module's tensors by PyTorch's names."""
    return {**x.get_weight(), **x.get_bias()}


def unpacked(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Gives a state dict with the tensors of dynamically quantised modules by the names that float modules have for them.

    Raises ValueError for modules whose state dict does not tell layers from directions, and for objects without tensors.
    """
    found: dict[Any, Any] = {}
    layers: dict[str, dict[int, Any]] = {}
    for key, value in state.items():
        match = _PACKED.fullmatch(str(key))
        if match is None or type(value).__name__ != "ScriptObject":
            found[key] = value
        elif match[2]:
            layers.setdefault(match[1], {})[int(match[2])] = value
        else:
            weight, bias = _linear(str(key), value)
            found |= {f"{match[1]}weight_{match[3]}": weight, f"{match[1]}bias_{match[3]}": bias}
    for prefix, packed in layers.items():
        found |= _named(prefix, [_cell(f"{prefix}_all_weight_values.{index}", packed[index]) for index in sorted(packed)])
    return found


def _named(prefix: str, cells: list[list[tuple[Any, Any]]]) -> dict[str, Any]:
    """Gives the tensors of cells, those of both directions of a layer side by side, by their names."""
    inputs = [one[0][0].shape[1] for one in cells]
    hidden = cells[0][1][0].shape[1]
    if len(cells) == 2 and inputs[0] == hidden:
        raise ValueError(
            f"{prefix or 'state dict'}: two layers, or two directions: a quantised state dict with as many inputs as units "
            "does not tell; hand in the module"
        )
    two = len(cells) % 2 == 0 and inputs[-1] == (inputs[0] if len(cells) == 2 else 2 * hidden)
    found: dict[str, Any] = {}
    for index, pair in enumerate(cells):
        end = f"_l{index // 2}{'_reverse' * (index % 2)}" if two else f"_l{index}"
        for (weight, bias), letters in zip(pair, ("ih", "hh"), strict=True):
            found |= {f"{prefix}weight_{letters}{end}": weight, f"{prefix}bias_{letters}{end}": bias}
    return found


def _cell(label: str, packed: Any) -> list[tuple[Any, Any]]:
    """Gives the weight and the bias of x, and of h."""
    try:
        inner = packed.__getstate__()[0][4]
        x, h = inner
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{label}: not the weights of a quantised cell: {error}") from None
    return [_linear(label, x), _linear(label, h)]


def _linear(label: str, packed: Any) -> tuple[Any, Any]:
    try:
        weight, bias = packed.__getstate__()[0]
        if weight.dim() != 2 or bias.dim() != 1:
            raise ValueError(f"shapes {tuple(weight.shape)} and {tuple(bias.shape)}")
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{label}: not the weights of a quantised product: {error}") from None
    return weight, bias


def tensor(name: str, value: Any) -> Array | Weights:
    """Gives a tensor as NumPy's array, or a quantised one as `Weights`; without a copy where it lies in the host's memory and
    is of float32 or float64.

    float16 and bfloat16 are widened to float32, which is exact. Raises ValueError for integers that are no weights.
    """
    value = value.detach().cpu()
    if value.is_quantized:
        return _quantised(name, value)
    if str(value.dtype).removeprefix("torch.") in HALVES:
        value = value.float()
    found: Array = value.numpy()
    return found


def _quantised(name: str, value: Any) -> Weights:
    integers = value.int_repr().numpy()
    scheme = str(value.qscheme()).removeprefix("torch.")
    if integers.dtype not in (np.int8, np.uint8) or integers.ndim != 2:
        raise ValueError(f"{name}: expected a matrix of 8-bit integers, got {value.dtype} of shape {tuple(value.shape)}")
    if scheme == "per_tensor_affine":
        return Weights(name, integers, value.q_scale(), value.q_zero_point())
    if scheme == "per_channel_affine" and value.q_per_channel_axis() == 0:
        return Weights(name, integers, value.q_per_channel_scales().numpy(), value.q_per_channel_zero_points().numpy())
    raise ValueError(f"{name}: expected one scale, or one for each row, got {scheme}")
