"""PyTorch: nn.LSTM, nn.GRU (reset-after) and their cells. Gate orders i, f, g, o and r, z, n.

bf16: `module.bfloat16()`; int8: `torch.ao.quantization.quantize_dynamic`. x comes and y goes in float32, as everywhere: that
both are converted for bf16, and that ragged rows are packed and padded again, counts as time of PyTorch's.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays, Layers, stacks
from bench.harness.errors import Unsupported
from bench.peers.gates import in_our_order, theirs
from bench.peers.peer import Run, Step, Train
from gpurnn.gates import TORCH

_NAMES = {"W_x": "weight_ih_l0", "W_h": "weight_hh_l0", "b": "bias_ih_l0"}


def version() -> str:
    return torch.__version__


def set_threads(n: int) -> None:
    torch.set_num_threads(n)


def _require_supported(case: Case) -> None:
    if case.cell == "gru":
        raise Unsupported("PyTorch has no reset-before GRU")


def _fill(module: torch.nn.Module, case: Case, weights: Layers) -> None:
    """torch's parameters of a direction are weight_ih, weight_hh, bias_ih, bias_hh, direction after direction."""
    arrays = [array for directions in weights for one in directions for array in theirs(case, one, TORCH)]
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))


def _layer(case: Case, weights: Layers, first: int = 0) -> torch.nn.Module:
    """A stack of as many layers as `weights` has, the first of which is the case's layer `first`."""
    _require_supported(case)
    kind = torch.nn.LSTM if case.cell == "lstm" else torch.nn.GRU
    layer = kind(case.layer_inputs[first], case.hidden, len(weights), bidirectional=case.directions == 2)
    _fill(layer, case, weights)
    return layer


def _cell(case: Case, weights: Layers, first: int) -> torch.nn.Module:
    _require_supported(case)
    kind = torch.nn.LSTMCell if case.cell == "lstm" else torch.nn.GRUCell
    cell = kind(case.layer_inputs[first], case.hidden)
    _fill(cell, case, weights)
    return cell


def _in_precision(modules: list[torch.nn.Module], precision: str) -> torch.nn.ModuleList:
    """The modules for inference."""
    found = torch.nn.ModuleList(modules).eval()
    if precision == "bf16":
        return found.bfloat16()
    if precision == "int8":
        kinds = {type(module) for module in modules}
        with warnings.catch_warnings(action="ignore"):  # it is deprecated, and has no successor for these
            found = torch.ao.quantization.quantize_dynamic(found, kinds, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    return found


def _dtype(precision: str) -> torch.dtype:
    """The type of inputs and outputs."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def build(case: Case, weights: Layers, precision: str) -> Run:
    modules = [_layer(case, stack, first) for first, stack in enumerate(stacks(case, weights))]
    layers, dtype = _in_precision(modules, precision), _dtype(precision)
    lengths = torch.tensor(case.lengths)

    def run(x: F32) -> F32:
        with torch.inference_mode():
            y: Any = torch.from_numpy(x).to(dtype)
            if case.ragged:
                y = pack_padded_sequence(y, lengths, enforce_sorted=False)
            for number, layer in enumerate(layers):
                backward = case.is_backward(number, 0)
                y = layer(y.flip(0) if backward else y)[0]
                y = y.flip(0) if backward else y
            if case.ragged:
                y = pad_packed_sequence(y)[0]
            found: F32 = y.float().numpy()
        return found

    return run


def build_step(case: Case, weights: Layers, precision: str) -> Step:
    cells = _in_precision([_cell(case, weights[k : k + 1], k) for k in range(case.layers)], precision)
    dtype, lstm = _dtype(precision), case.cell == "lstm"
    zeros = torch.zeros(case.batch, case.hidden, dtype=dtype)
    states: list[Any] = [(zeros, zeros) if lstm else zeros for _ in cells]

    def step(x_t: F32) -> F32:
        with torch.inference_mode():
            h = torch.from_numpy(x_t).to(dtype)
            for number, cell in enumerate(cells):
                states[number] = cell(h, states[number])
                h = states[number][0] if lstm else states[number]
            found: F32 = h.float().numpy()
        return found

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    if reload:
        raise Unsupported("PyTorch's optimisers change the weights in place")
    layer = _layer(case, ((weights,),)).train()

    def train(x: F32, dy: F32) -> Arrays:
        layer.zero_grad(set_to_none=True)
        leaf = torch.from_numpy(x).requires_grad_()
        layer(leaf)[0].backward(torch.from_numpy(dy))
        gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
        gradients["x"] = leaf.grad
        return {name: gradient.numpy() for name, gradient in gradients.items() if gradient is not None}

    return train


def in_our_layout(case: Case, gradients: Arrays) -> Arrays:
    ours = {name: in_our_order(case, gradients[theirs], TORCH) for name, theirs in _NAMES.items()}
    ours["x"] = gradients["x"]
    if case.cell == "gru-after":
        ours["b_hn"] = np.split(gradients["bias_hh_l0"], case.gates)[TORCH.gru.index("n")]
    return ours
