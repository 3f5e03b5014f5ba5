"""PyTorch: nn.LSTM, nn.GRU (reset-after) and their cells. Gate orders i, f, g, o and r, z, n."""

from __future__ import annotations

import numpy as np
import torch

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
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


def _fill(module: torch.nn.Module, case: Case, weights: Arrays) -> None:
    """torch names its parameters weight_ih, weight_hh, bias_ih, bias_hh, with _l0 for a layer."""
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), theirs(case, weights, TORCH), strict=True):
            parameter.copy_(torch.from_numpy(array))


def _layer(case: Case, weights: Arrays) -> torch.nn.Module:
    _require_supported(case)
    kind = torch.nn.LSTM if case.cell == "lstm" else torch.nn.GRU
    layer = kind(case.input, case.hidden)
    _fill(layer, case, weights)
    return layer


def build(case: Case, weights: Arrays) -> Run:
    layer = _layer(case, weights).eval()

    def run(x: F32) -> F32:
        with torch.inference_mode():
            y: F32 = layer(torch.from_numpy(x))[0].numpy()
        return y

    return run


def build_step(case: Case, weights: Arrays) -> Step:
    _require_supported(case)
    zeros = torch.zeros(case.batch, case.hidden)
    if case.cell == "lstm":
        lstm = torch.nn.LSTMCell(case.input, case.hidden).eval()
        _fill(lstm, case, weights)
        state = (zeros, zeros)

        def lstm_step(x_t: F32) -> F32:
            nonlocal state
            with torch.inference_mode():
                state = lstm(torch.from_numpy(x_t), state)
            h: F32 = state[0].numpy()
            return h

        return lstm_step
    gru = torch.nn.GRUCell(case.input, case.hidden).eval()
    _fill(gru, case, weights)
    last = zeros

    def gru_step(x_t: F32) -> F32:
        nonlocal last
        with torch.inference_mode():
            last = gru(torch.from_numpy(x_t), last)
        h: F32 = last.numpy()
        return h

    return gru_step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    if reload:
        raise Unsupported("PyTorch's optimisers change the weights in place")
    layer = _layer(case, weights).train()

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
