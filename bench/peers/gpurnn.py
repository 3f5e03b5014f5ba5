"""gpurnn itself, by its public interface."""

from __future__ import annotations

import importlib.metadata
from itertools import cycle
from typing import Any

import numpy as np

import gpurnn
from bench.harness.cases import FLOAT32, Case
from bench.harness.data import F32, Arrays, Layers, stacks
from bench.harness.data import weights as other_weights
from bench.harness.errors import Missing
from bench.peers.peer import Run, Step, Train

if not hasattr(gpurnn, "LSTM"):
    raise Missing("gpurnn is not installed (a bare folder of that name was found)")

Layer = gpurnn.LSTM | gpurnn.GRU


def version() -> str:
    return importlib.metadata.version("gpurnn")


def set_threads(n: int) -> None:
    gpurnn.set_num_threads(n)


def _params(weights: Arrays) -> Arrays:
    return {f"layers.0.{name}": array for name, array in weights.items()}


def _layer(case: Case, weights: Layers, precision: str, first: int = 0) -> Layer:
    """A stack of as many layers as `weights` has, the first of which is the case's layer `first`."""
    size, backward = case.layer_inputs[first], case.is_backward(first, 0)
    options: dict[str, Any] = {"bidirectional": case.directions == 2, "reverse": backward}
    options["precision"] = None if precision == FLOAT32 else precision
    layer: Layer
    if case.cell == "lstm":
        layer = gpurnn.LSTM(size, case.hidden, len(weights), **options)
    else:
        layer = gpurnn.GRU(size, case.hidden, len(weights), reset_after=case.cell == "gru-after", **options)
    params: Arrays = {}
    for number, directions in enumerate(weights):
        for direction, arrays in enumerate(directions):
            prefix = f"layers.{number}.reverse." if direction or backward else f"layers.{number}."
            params |= {prefix + name: array for name, array in arrays.items()}
    layer.load_params(params)
    return layer


def build(case: Case, weights: Layers, precision: str) -> Run:
    lengths = np.array(case.lengths) if case.ragged else None
    layers = [_layer(case, stack, precision, first) for first, stack in enumerate(stacks(case, weights))]

    def run(x: F32) -> F32:
        for layer in layers:
            x = layer(x, lengths=lengths)[0]
        return x

    return run


def build_step(case: Case, weights: Layers, precision: str) -> Step:
    stream = _layer(case, weights, precision).stream(batch_size=case.batch)
    out = np.empty((case.batch, case.hidden), np.float32)

    def step(x_t: F32) -> F32:
        stream.step(x_t, out=out)
        return out

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    layer = _layer(case, ((weights,),), FLOAT32)
    # two sets of values in turn, as after an optimiser's step, the given one first
    sets = cycle((_params(weights), _params(other_weights(case, variant=1))))

    def train(x: F32, dy: F32) -> Arrays:
        if reload:
            layer.load_params(next(sets))
        _, vjp = layer.vjp(x)
        gradients = vjp(dy)
        return {"x": gradients.x, **gradients.params}

    return train


def in_our_layout(case: Case, gradients: Arrays) -> Arrays:
    return {name.removeprefix("layers.0."): array for name, array in gradients.items()}
