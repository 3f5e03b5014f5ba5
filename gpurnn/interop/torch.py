"""PyTorch modules that run, forward and backward, on gpurnn's kernels: `LSTM`, `GRU`, and `replace` for whole models.

They are `torch.nn.LSTM` and `torch.nn.GRU` with another `forward`: the same constructor, parameters, state dict and pickles.
A GRU is reset-after, as PyTorch's. CPU tensors are read where they lie; CUDA tensors go through DLPack to the CUDA backend, on
PyTorch's current stream (not yet run on a GPU).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gpurnn_kernels.spec import Array

from ..convert import gates
from ..convert.check import log
from ..convert.torch import Shape

Tensor = torch.Tensor


def replace(module: torch.nn.Module) -> torch.nn.Module:
    """Makes every `torch.nn.LSTM` and `GRU` inside a module, itself included, run on gpurnn; in place.

    Parameters, hooks, optimizers and references to the modules stay as they are. Subclasses with code of their own are left
    alone and logged. Gives the module back. Raises NotImplementedError, and changes nothing, if one has an option that is not
    built.
    """
    kinds: dict[type, type] = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU}
    found = []
    for name, one in module.named_modules():
        if type(one) in kinds:
            found.append(one)
            _check(one)
        elif isinstance(one, tuple(kinds)) and not isinstance(one, _Recurrent):
            log.info("replace: %r is left alone: %s is no plain torch.nn layer", name, type(one).__name__)
    for one in found:
        one.__class__ = kinds[type(one)]  # type: ignore[assignment]
    return module


class _Recurrent(torch.nn.RNNBase):
    """`forward` and what it keeps; the classes below are of PyTorch's own besides."""

    # the last call's layers, by the range of stacked layers that each stands for
    _layers: dict[tuple[int, int], tuple[list[Tensor], Any]] | None = None

    def _check(self) -> None:
        _check(self)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_layers"}

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As PyTorch's: a tensor (T, B, I), or (B, T, I) with batch_first, or (T, I), or a PackedSequence; and the state."""
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"input: expected 2 or 3 dimensions, got {input.dim()}")
        unbatched = input.dim() == 2
        swap = self.batch_first and not unbatched
        x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if swap else input
        states = self._states(hx, unbatched)
        y, final = self._stack(x, states, None)
        y = y.squeeze(1) if unbatched else y.transpose(0, 1) if swap else y
        return y, self._given(final, unbatched)

    def _packed(self, packed: PackedSequence, hx: Any) -> Any:
        # in the order of falling lengths, as it lies there
        x, lengths = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes))
        states = [
            one if packed.sorted_indices is None else one.index_select(1, packed.sorted_indices) for one in self._states(hx)
        ]
        y, final = self._stack(x, states, lengths)
        data = pack_padded_sequence(y, lengths).data
        if packed.unsorted_indices is not None:
            final = [one.index_select(1, packed.unsorted_indices) for one in final]
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), self._given(final)

    def _states(self, hx: Any, unbatched: bool = False) -> list[Tensor]:
        """(L*D, B, H) each; none for zeros."""
        if hx is None:
            return []
        given = list(hx) if isinstance(self, LSTM) else [hx]
        wanted = 2 if unbatched else 3
        for one in given:
            if one.dim() != wanted:
                raise ValueError(f"hx: expected {wanted} dimensions beside this input, got {one.dim()}")
        return [one.unsqueeze(1) for one in given] if unbatched else given

    def _given(self, states: Sequence[Tensor], unbatched: bool = False) -> Any:
        found = [one.squeeze(1) for one in states] if unbatched else list(states)
        return (found[0], found[1]) if isinstance(self, LSTM) else found[0]

    def _stack(self, x: Tensor, states: list[Tensor], lengths: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """All layers; one by one when there is dropout between them."""
        if not (self.dropout and self.training and self.num_layers > 1):
            return self._run((0, self.num_layers), x, states, lengths)
        directions = 2 if self.bidirectional else 1
        finals: list[list[Tensor]] = []
        for index in range(self.num_layers):
            if index:
                x = torch.nn.functional.dropout(x, self.dropout)
            rows = slice(index * directions, (index + 1) * directions)
            x, final = self._run((index, index + 1), x, [one[rows] for one in states], lengths)
            finals.append(final)
        return x, [torch.cat(parts) for parts in zip(*finals, strict=True)]

    def _run(
        self, layers: tuple[int, int], x: Tensor, states: list[Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        shape = _shape(self, layers)
        flat = [getattr(self, name) for name in _names(shape, layers[0])]
        for one in (*flat, *states):
            if one.device != x.device:
                raise ValueError(f"input is on {x.device}, but weights or hx are on {one.device}")
        layer = self._layer(layers, shape, flat)
        keep = torch.is_grad_enabled() and any(one.requires_grad for one in (x, *states, *flat))
        y, *final = _Function.apply(layer, shape, lengths, keep, len(states), x, *states, *flat)  # type: ignore[no-untyped-call]
        return y, final

    def _layer(self, layers: tuple[int, int], shape: Shape, flat: list[Tensor]) -> Any:
        """The gpurnn layer of these weights: the last call's, if they are the same numbers still."""
        kept = {} if self._layers is None else self._layers
        if layers in kept and all(map(_same, flat, kept[layers][0])):
            return kept[layers][1]
        weights = {name: one.detach().cpu().numpy() for name, one in zip(shape.names, flat, strict=True)}
        dtype = next(iter(weights.values())).dtype
        layer = gates.layer(shape.kind, shape.configuration(dtype), shape.params(weights))
        copies = [one.detach().clone() for one in flat]
        self._layers = {**kept, layers: (copies, layer)}
        return layer


class LSTM(_Recurrent, torch.nn.LSTM):
    """`torch.nn.LSTM` on gpurnn's kernels. No second derivatives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check()


class GRU(_Recurrent, torch.nn.GRU):
    """`torch.nn.GRU` (reset-after) on gpurnn's kernels. No second derivatives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check()


class _Function(torch.autograd.Function):
    """One gpurnn call, and its vector-Jacobian product."""

    @staticmethod
    def forward(
        ctx: Any, layer: Any, shape: Shape, lengths: Tensor | None, keep: bool, count: int, x: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """`keep`: a gradient may be asked for. rest: the state's tensors, `count` of them, and the weights."""
        states = [_array(one) for one in rest[:count]]
        given = None if not states else tuple(states) if len(states) == 2 else states[0]
        counts = None if lengths is None else lengths.numpy()
        with _stream_on(x.device):
            if keep:
                (y, final), ctx.vjp = layer.vjp(_array(x), given, counts)
            else:
                y, final = layer(_array(x), given, counts)
        results = tuple(_tensor(one) for one in (y, *(final if len(layer.states) == 2 else (final,))))
        ctx.shape, ctx.count, ctx.finals = shape, count, [(one.shape, one.dtype, one.device) for one in results[1:]]
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *dfinal: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("gpurnn has no second derivatives: differentiate without create_graph=True")
        with _stream_on(ctx.finals[0][2]):
            grads = ctx.vjp(None if dy is None else _array(dy), _dstate(ctx, dfinal))
            weights = ctx.shape.weights(grads.params, gradients=True).values()
        states = grads.state if len(ctx.finals) == 2 else (grads.state,)
        found = [_tensor(one) for one in (*states[: ctx.count], *weights)]
        return (None, None, None, None, None, _tensor(grads.x), *found)


def _dstate(ctx: Any, given: Sequence[Tensor | None]) -> Any:
    """The gradients that reach the final state; zeros where one of two is missing."""
    if all(one is None for one in given):
        return None
    arrays = [
        _array(torch.zeros(shape, dtype=dtype, device=device) if one is None else one)
        for one, (shape, dtype, device) in zip(given, ctx.finals, strict=True)
    ]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def _stream_on(device: torch.device) -> AbstractContextManager[Any]:
    """On a GPU, PyTorch's current stream is CuPy's, inside."""
    if device.type != "cuda":
        return nullcontext()
    import cupy

    return cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream)  # type: ignore[no-any-return]


def _array(tensor: Tensor) -> Array:
    """The same memory as an array: NumPy's, or CuPy's on a GPU."""
    if tensor.is_cuda:
        import cupy

        array: Array = cupy.from_dlpack(tensor.detach())
        return array
    return tensor.detach().numpy()


def _tensor(array: Any) -> Tensor:
    found: Tensor = torch.utils.dlpack.from_dlpack(array)
    return found


def _shape(module: Any, layers: tuple[int, int]) -> Shape:
    directions = 2 if module.bidirectional else 1
    inputs = directions * (module.proj_size or module.hidden_size) if layers[0] else module.input_size
    kind: gates.Kind = "LSTM" if isinstance(module, torch.nn.LSTM) else "GRU"
    count = layers[1] - layers[0]
    return Shape(kind, inputs, module.hidden_size, count, module.bias, module.bidirectional, module.proj_size)


def _names(shape: Shape, first: int) -> list[str]:
    """The module's names for the weights of layers `first` and on."""
    if not first:
        return shape.names
    ends = ("", "_reverse") if shape.bidirectional else ("",)
    places = [f"_l{index}{end}" for index in range(first, first + shape.num_layers) for end in ends]
    return [stem + place for place in places for stem in shape.stems]


def _check(module: Any) -> None:
    """Raises NotImplementedError for options that gpurnn has not got, without making a layer."""
    import gpurnn

    cls = gpurnn.LSTM if isinstance(module, torch.nn.LSTM) else gpurnn.GRU
    configuration = _shape(module, (0, module.num_layers)).configuration(_numpy_dtype(module))
    if configuration["dtype"] == np.float16:
        raise NotImplementedError("float16 modules do not run on gpurnn; keep the recurrent layers in float32")
    full = {"num_layers": 1, **(cls.__init__.__kwdefaults__ or {})} | configuration
    cls.__new__(cls)._set_up(**{name: full[name] for name in cls._arguments})


def _numpy_dtype(module: Any) -> Any:
    return torch.empty(0, dtype=module.weight_ih_l0.dtype).numpy().dtype


def _same(new: Tensor, old: Tensor) -> bool:
    """Compared by value: `.data` and NumPy views change weights without PyTorch's counters noticing."""
    return new.device == old.device and new.dtype == old.dtype and torch.equal(new.detach(), old)
