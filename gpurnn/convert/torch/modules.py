"""PyTorch's `nn.LSTM`, `nn.GRU`, their cells and state dicts as layers."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpurnn_kernels.quantised import Quantised
from gpurnn_kernels.spec import Array

from ... import checks
from ...export.torch import Shape
from ...layers.description import Kind
from ...layers.make import Layer, converted
from .. import check
from ..found import Found, choose
from ..integers import Weights, chosen
from . import quantised

OURS = "gpurnn.interop.torch."  # what the names of the modules with our own PyTorch modules start with
_NAME = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l(\d{1,9})(_reverse)?)?")


@np.errstate(all="ignore")  # a caller's "raise" is not meant for the rounding of weights
def from_torch(x: Any, *, prefix: str = "", precision: str | None = None) -> Layer:
    """Makes a layer with the weights of a PyTorch one.

        lstm = gpurnn.from_torch(torch.nn.LSTM(40, 128))
        lstm = gpurnn.from_torch(model.state_dict(), prefix="encoder.lstm")

    Args:
        x: a `torch.nn.LSTM`, `GRU`, `LSTMCell` or `GRUCell`, also one that `torch.ao.quantization.quantize_dynamic` made, or
            a module that has one inside, or a state dict, of tensors or NumPy arrays (PyTorch need not be installed then).
        prefix: which one of several: "encoder.lstm.". A state dict does not say batch_first: set it on what you hand in.
        precision: of the layer's products, "bf16", "int8", "tf32" or "float32"; None is "int8" for 8-bit weights, which the
            layer takes as they are, and the dtype's for others.

    Returns a `gpurnn.LSTM`, or a `gpurnn.GRU` with reset_after=True, of the same dtype, float32 for weights of fewer bits. The
    two biases are summed where they
    always meet. Dropout is dropped: it is the identity at inference. Raises ValueError for layers that cannot be represented,
    TypeError for anything but modules and state dicts, NotImplementedError for options that are not built, and for integers
    that are not symmetric around zero.
    """
    if isinstance(x, Mapping):
        return _from_state(x, prefix, precision)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.nn.Module):
        raise TypeError(f"from_torch: expected a torch.nn.Module or a state dict, got {type(x).__name__}")
    return _from_module(torch, x, prefix, precision)


def _from_module(torch: Any, x: Any, prefix: str, precision: str | None) -> Layer:
    inside = {name: one for name, one in x.named_modules() if _kind_of(torch, one) is not None}
    if not inside:
        raise ValueError(f"{type(x).__name__}: no torch.nn.LSTM, GRU, LSTMCell or GRUCell, nor one inside")
    if prefix or "" not in inside:
        wanted = prefix.rstrip(".") or None
        x = inside[choose(list(inside), wanted, lambda name: [name], lambda name: _found(name, inside[name]), "prefix=...")]
    kind = _kind_of(torch, x)
    assert kind is not None
    dynamic = isinstance(x, tuple(cls for cls, _ in quantised.kinds()))
    cell = quantised.is_cell(x) if dynamic else isinstance(x, torch.nn.RNNCellBase)
    options = () if cell else (x.num_layers, x.bias, x.bidirectional, getattr(x, "proj_size", 0))
    shape = Shape(kind, x.input_size, x.hidden_size, *(options or (1, x.bias)))
    _before_call(type(x).__name__, x)
    own = {name: name.removesuffix("_l0") if cell else name for name in shape.names}
    # a property, not the state dict: what a parametrisation (weight norm) makes of it counts
    held = quantised.weights_of(x) if dynamic else {one: getattr(x, one) for one in own.values()}
    weights = {name: _array(name, held[one]) for name, one in own.items()}
    check.dropped(type(x).__name__, getattr(x, "dropout", 0))
    if type(x).forward.__module__.startswith(OURS):
        precision = checks.asked(precision, x.precision)
    return _layer(shape, weights, precision, getattr(x, "batch_first", False))


def _before_call(label: str, x: Any) -> None:
    """Makes the weights that weight_norm, spectral_norm and pruning make before each call; warns of other hooks."""
    for hook in x._forward_pre_hooks.values():
        if not type(hook).__module__.startswith("torch.nn.utils."):
            check.log.warning("%s: a hook that runs before each call is not converted: %r", label, hook)
            continue
        training, x.training = x.training, False  # in training spectral_norm goes one step further
        try:
            hook(x, ())
        finally:
            x.training = training
    if x._forward_hooks:
        check.log.warning("%s: %d hooks that run after each call are not converted", label, len(x._forward_hooks))


def _kind_of(torch: Any, x: Any) -> Kind | None:
    """Gives the kind of a module; None for a subclass that computes something of its own, and for anything else."""
    kinds: list[tuple[Any, Kind]] = [(torch.nn.LSTM, "LSTM"), (torch.nn.GRU, "GRU")]
    kinds += [(torch.nn.LSTMCell, "LSTM"), (torch.nn.GRUCell, "GRU"), *quantised.kinds()]
    for cls, kind in kinds:
        if isinstance(x, cls):
            forward = type(x).forward
            same = forward is cls.forward or forward.__module__.startswith(OURS)
            return kind if same else None
    return None


def _found(name: str, x: Any) -> Found:
    return Found(name, type(x).__name__, x.input_size, x.hidden_size, getattr(x, "num_layers", 1))


def _from_state(state: Mapping[Any, Any], prefix: str, precision: str | None) -> Layer:
    state = quantised.unpacked(state)
    found = find(state)
    if prefix and prefix not in found and prefix + "." in found:
        prefix += "."
    if prefix not in found:
        prefix = choose(list(found), prefix or None, lambda one: [one], lambda one: described(one, found[one]), "prefix=...")
    inside = {str(key).removeprefix(prefix): value for key, value in state.items() if str(key).startswith(prefix)}
    unknown = [name for name in inside if not _NAME.fullmatch(name)]
    if unknown:
        raise ValueError(f"{prefix}: not a plain torch.nn.LSTM or GRU: it has {', '.join(map(repr, unknown[:5]))} besides")
    cell = "weight_ih" in inside
    weights = {name + "_l0" if cell else name: _array(prefix + name, value) for name, value in inside.items()}
    shape = _shape(prefix, {name: array.shape for name, array in weights.items()})
    return _layer(shape, weights, precision)


def is_weight(key: str) -> bool:
    """Tells whether a state dict's key may name a weight of a recurrent layer."""
    return _NAME.fullmatch(key.rpartition(".")[2]) is not None


def find(state: Mapping[Any, Any]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Gives the prefixes at which a state dict holds a recurrent layer, and the shapes of the weights there."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, value in state.items():
        start, dot, name = str(key).rpartition(".")
        if _NAME.fullmatch(name):
            found.setdefault(start + dot, {})[name] = tuple(getattr(value, "shape", ()))
    starts = ("weight_ih_l0", "weight_ih")
    return {prefix: names for prefix, names in found.items() if any(name in names for name in starts)}


def described(prefix: str, sizes: Mapping[str, tuple[int, ...]]) -> Found:
    """Describes a layer for lists: whatever is wrong with it is told when it is converted."""
    cell = "weight_ih" in sizes
    try:
        shape = _shape(prefix, {name + "_l0" if cell else name: size for name, size in sizes.items()})
    except ValueError:
        return Found(prefix, "no LSTM or GRU", None, None)
    kind, inputs, hidden, layers = shape[:4]
    return Found(prefix, kind + "Cell" * cell, inputs, hidden, layers, 1 + shape.bidirectional)


def _shape(prefix: str, sizes: Mapping[str, tuple[int, ...]]) -> Shape:
    """Gives the sizes of the layer that weights of these shapes belong to. Raises ValueError if they belong to none."""
    label = prefix or "state dict"
    first, second, hr = sizes.get("weight_ih_l0", ()), sizes.get("weight_hh_l0", ()), sizes.get("weight_hr_l0")
    if len(first) != 2 or len(second) != 2 or (hr is not None and len(hr) != 2):
        raise ValueError(f"{label}: expected matrices weight_ih_l0 and weight_hh_l0, got shapes {first} and {second}")
    hidden = second[1] if hr is None else hr[1]
    gate_count = second[0] / max(hidden, 1)
    kinds: dict[float, Kind] = {4: "LSTM", 3: "GRU"}
    if gate_count not in kinds:
        what = "the weights of torch.nn.RNN" if gate_count == 1 else f"{second[0]} rows of gates over {hidden} units"
        raise ValueError(f"{label}: expected an LSTM (4 gates) or a GRU (3 gates), got {what}")
    layers = 1 + max(int(match[3] or 0) for name in sizes if (match := _NAME.fullmatch(name)))
    if layers > len(sizes):
        raise ValueError(f"{label}: weights of layer {layers - 1}, but only {len(sizes)} weights at all")
    reverse = any(name.endswith("_reverse") for name in sizes)
    kind = kinds[gate_count]
    shape = Shape(kind, first[1], hidden, layers, "bias_ih_l0" in sizes, reverse, 0 if hr is None else hr[0])
    expected = shape.sizes()
    if set(expected) != set(sizes):
        odd = sorted(set(expected) ^ set(sizes))
        raise ValueError(f"{label}: weights of no torch.nn.{kind}: missing or unknown {', '.join(odd[:6])}")
    for name, wanted in expected.items():
        if sizes[name] != wanted:
            raise ValueError(f"{prefix}{name}: expected shape {wanted}, got {sizes[name]}")
    return shape


def _array(name: str, value: Any) -> Array | Weights:
    """Gives a weight as NumPy's array, without a copy where it lies in the host's memory; float16 and bfloat16 as float32."""
    if hasattr(value, "detach"):
        value = quantised.tensor(name, value)
    if isinstance(value, Weights):
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a tensor or a NumPy array, got {type(value).__name__}")
    if value.dtype.name in quantised.HALVES:
        return np.asarray(value, np.float32)
    if value.dtype.kind != "f":
        raise TypeError(f"{name}: expected floating-point numbers, got {value.dtype}")
    return value


def _layer(shape: Shape, given: Mapping[str, Array | Weights], precision: str | None, batch_first: bool = False) -> Layer:
    precision = chosen(precision, all(isinstance(one, Weights) for name, one in given.items() if "weight" in name))
    exact = {name: one.of(precision) if isinstance(one, Weights) else one for name, one in given.items()}
    weights = {name: one.floats() if isinstance(one, Quantised) else one for name, one in exact.items()}
    dtypes = {array.dtype for array in weights.values()}
    if len(dtypes) != 1:
        raise ValueError(f"expected weights of one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    configuration = shape.configuration(dtypes.pop(), batch_first) | {"precision": precision}
    layer = converted(shape.kind, configuration, shape.params(exact))
    torch = sys.modules.get("torch")
    if torch is not None:
        factor = check.scale(layer)
        scaled = {name: array * array.dtype.type(factor) for name, array in weights.items()}
        check.agree(layer, runner(torch, shape, scaled), f"torch.nn.{shape.kind}")
    return layer


def runner(torch: Any, shape: Shape, weights: Mapping[str, Array]) -> check.Run:
    """Gives PyTorch's layer of these weights as a function of arrays."""
    module = shape.module(torch)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, assign=True)

    def run(x: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        tensors = [torch.from_numpy(array) for array in (x, *state)]
        # PyTorch warns of projections that oneDNN does not do
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y, final = module(tensors[0], tuple(tensors[1:]) if len(state) == 2 else tensors[1])
        return y.numpy(), [one.numpy() for one in (final if len(state) == 2 else (final,))]

    return run
