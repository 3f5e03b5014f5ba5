"""`LSTM` and `GRU`: PyTorch's modules with another `forward`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gpurnn_kernels.spec import REDUCED

from ...export.torch import Shape
from ...layers.description import ARGUMENTS, Kind, described
from . import operators
from .calls import Function, Prepared, Tensor, check_dtype, name_of, run

Key = tuple[int, int, str | None]  # the range of stacked layers that a layer stands for, and its precision


class Recurrent(torch.nn.RNNBase):
    """`forward` and what it keeps; the classes below are of PyTorch's own besides."""

    precision: str | None = None  # of products in eval mode
    _layers: dict[Key, Prepared] | None = None  # the last call's

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_layers"}

    def extra_repr(self) -> str:
        """Gives the arguments for `repr`."""
        return super().extra_repr() + (f", precision={self.precision!r}" if self.precision else "")

    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            f"torch.jit.script has no {type(self).__name__} of gpurnn: use torch.jit.trace, or script before `replace`"
        )

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Runs a tensor (T, B, I), or (B, T, I) with batch_first, or (T, I), or a PackedSequence, as PyTorch does."""
        packed = isinstance(input, PackedSequence)
        now = operators.runs_now(input.data if packed else input)
        if not now:
            if isinstance(input, torch.fx.Proxy):
                return self._leaf(input, hx)
            if torch.onnx.is_in_onnx_export():
                return super().forward(input, hx)
        if packed:
            return self._packed(input, hx, now)
        if input.dim() not in (2, 3):
            raise ValueError(f"input: expected 2 or 3 dimensions, got {input.dim()}")
        unbatched = input.dim() == 2
        swap = self.batch_first and not unbatched
        x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if swap else input
        states = self._states(hx, unbatched)
        y, final = self._stack(x, states, None, now)
        y = y.squeeze(1) if unbatched else y.transpose(0, 1) if swap else y
        return y, self._given(final, unbatched)

    def _leaf(self, input: Any, hx: Any) -> Any:
        """A call of this module in the graph of `torch.fx.symbolic_trace`."""
        path = input.tracer.path_of_module(self)
        if not path:
            raise NotImplementedError("torch.fx: gpurnn's modules are leaves of a graph; trace a module that holds this one")
        return input.tracer.create_proxy("call_module", path, (input, hx), {})

    def _packed(self, packed: PackedSequence, hx: Any, now: bool) -> Any:
        # in the order of falling lengths, as it lies there
        x, lengths = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes))
        states = [
            one if packed.sorted_indices is None else one.index_select(1, packed.sorted_indices) for one in self._states(hx)
        ]
        y, final = self._stack(x, states, lengths, now)
        data = pack_padded_sequence(y, lengths).data
        if packed.unsorted_indices is not None:
            final = [one.index_select(1, packed.unsorted_indices) for one in final]
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), self._given(final)

    def _states(self, hx: Any, unbatched: bool = False) -> list[Tensor]:
        """(L*D, B, H) each; none for zeros."""
        if hx is None:
            return []
        given = list(hx) if isinstance(self, torch.nn.LSTM) else [hx]
        wanted = 2 if unbatched else 3
        for one in given:
            if one.dim() != wanted:
                raise ValueError(f"hx: expected {wanted} dimensions beside this input, got {one.dim()}")
        return [one.unsqueeze(1) for one in given] if unbatched else given

    def _given(self, states: Sequence[Tensor], unbatched: bool = False) -> Any:
        found = [one.squeeze(1) for one in states] if unbatched else list(states)
        return (found[0], found[1]) if isinstance(self, torch.nn.LSTM) else found[0]

    def _stack(self, x: Tensor, states: list[Tensor], lengths: Tensor | None, now: bool) -> tuple[Tensor, list[Tensor]]:
        """All layers; one by one when there is dropout between them."""
        if not (self.dropout and self.training and self.num_layers > 1):
            return self._run((0, self.num_layers), x, states, lengths, now)
        directions = 2 if self.bidirectional else 1
        finals: list[list[Tensor]] = []
        for index in range(self.num_layers):
            if index:
                x = torch.nn.functional.dropout(x, self.dropout)
            rows = slice(index * directions, (index + 1) * directions)
            x, final = self._run((index, index + 1), x, [one[rows] for one in states], lengths, now)
            finals.append(final)
        return x, [torch.cat(parts) for parts in zip(*finals, strict=True)]

    def _run(
        self, layers: tuple[int, int], x: Tensor, states: list[Tensor], lengths: Tensor | None, now: bool
    ) -> tuple[Tensor, list[Tensor]]:
        shape = _shape(self, layers)
        flat = [getattr(self, name) for name in _names(shape, layers[0])]
        device, dtype = x.device, flat[0].dtype
        for one in (*flat, *states):
            if one.device != device:
                raise ValueError(f"input is on {device}, but weights or hx are on {one.device}")
            now = now and type(one) in operators.PLAIN
        if x.dtype != dtype:
            x = _cast("x", x, dtype)
        states = [one if one.dtype == dtype else _cast("hx", one, dtype) for one in states]
        precision = None if self.training else self.precision
        if precision in REDUCED and _keeps(x, *states, *flat):
            raise NotImplementedError(
                f"precision {precision!r} has no gradients: call the module under torch.no_grad(), or after .train(), which "
                f"computes in {name_of(dtype)}"
            )
        if not now:
            y, *final = operators.call(shape, x, states, flat, lengths, precision)
            return y, final
        call = _undisturbed() if "torch._dynamo" in sys.modules else _call
        return call(self, (*layers, precision), shape, flat, x, states, lengths)

    def _layer(self, key: Key, shape: Shape, flat: list[Tensor]) -> Any:
        """The gpurnn layer of these weights: the last call's, if they are the same numbers still."""
        kept = {} if self._layers is None else self._layers
        found = kept.get(key)
        if found is None or not found.stands_for(flat):
            found = Prepared.of(shape, flat, key[2])
            self._layers = {**kept, key: found}
        return found.layer


class LSTM(Recurrent, torch.nn.LSTM):
    """`torch.nn.LSTM` on gpurnn's kernels. No second derivatives.

    precision: of products in eval mode, as `gpurnn.LSTM` takes it.
    """

    def __init__(self, *args: Any, precision: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check(self, precision)
        self.precision = precision


class GRU(Recurrent, torch.nn.GRU):
    """`torch.nn.GRU` (reset-after) on gpurnn's kernels. No second derivatives.

    precision: of products in eval mode, as `gpurnn.GRU` takes it.
    """

    def __init__(self, *args: Any, precision: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check(self, precision)
        self.precision = precision


# pickles name the public module
LSTM.__module__ = GRU.__module__ = __package__


def _call(
    module: Recurrent, key: Key, shape: Shape, flat: list[Tensor], x: Tensor, states: list[Tensor], lengths: Any
) -> tuple[Tensor, list[Tensor]]:
    layer = module._layer(key, shape, flat)
    keep = _keeps(x, *states, *flat)
    if not keep and forward_ad._current_level < 0:
        (y, *final), _ = run(layer, x, states, lengths, keep)
        return y, final
    y, *final = Function.apply(layer, shape, lengths, keep, len(states), x, *states, *flat)  # type: ignore[no-untyped-call]
    return y, final


def _keeps(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(one.requires_grad for one in tensors)


@cache
def _undisturbed() -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """`_call`, with the code below it kept from torch.compile where that has broken a graph at a module."""
    disabled: Callable[..., tuple[Tensor, list[Tensor]]] = torch.compiler.disable(_call)
    return disabled


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Casts a tensor to the weights' dtype under autocast, and refuses it otherwise."""
    check_dtype(dtype)
    if not torch.is_autocast_enabled(tensor.device.type):
        raise TypeError(f"{name}: expected {name_of(dtype)}, got {name_of(tensor.dtype)}: the weights are {name_of(dtype)}")
    return tensor.to(dtype)


def _shape(module: Any, layers: tuple[int, int]) -> Shape:
    directions = 2 if module.bidirectional else 1
    inputs = directions * (module.proj_size or module.hidden_size) if layers[0] else module.input_size
    kind: Kind = "LSTM" if isinstance(module, torch.nn.LSTM) else "GRU"
    count = layers[1] - layers[0]
    return Shape(kind, inputs, module.hidden_size, count, module.bias, module.bidirectional, module.proj_size)


def _names(shape: Shape, first: int) -> list[str]:
    """The module's names for the weights of layers `first` and on."""
    if not first:
        return shape.names
    ends = ("", "_reverse") if shape.bidirectional else ("",)
    places = [f"_l{index}{end}" for index in range(first, first + shape.num_layers) for end in ends]
    return [stem + place for place in places for stem in shape.stems]


def check(module: Any, precision: str | None = None) -> None:
    """Raises NotImplementedError for options that gpurnn has not got, without making a layer; ValueError and TypeError for a
    precision that no such layer has."""
    if precision in REDUCED and module.weight_ih_l0.is_cuda:
        raise NotImplementedError(f"precision {precision!r} is not built on CUDA")
    dtype = module.weight_ih_l0.dtype
    check_dtype(dtype)
    shape = _shape(module, (0, module.num_layers))
    configuration = shape.configuration(np.dtype(name_of(dtype))) | {"precision": precision}
    described(shape.kind, {name: value for name, value in configuration.items() if name in ARGUMENTS[shape.kind]})
