"""gpurnn itself, by its public interface."""

from __future__ import annotations

import importlib.metadata
from itertools import cycle

import numpy as np

import gpurnn
from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from bench.harness.data import weights as other_weights
from bench.harness.errors import Missing
from bench.peers.peer import Run, Step, Train

if not hasattr(gpurnn, "LSTM"):
    raise Missing("gpurnn is not installed (a bare folder of that name was found)")


def version() -> str:
    return importlib.metadata.version("gpurnn")


def set_threads(n: int) -> None:
    gpurnn.set_num_threads(n)


def _params(weights: Arrays) -> Arrays:
    return {f"layers.0.{name}": array for name, array in weights.items()}


def _layer(case: Case, weights: Arrays) -> gpurnn.LSTM | gpurnn.GRU:
    layer: gpurnn.LSTM | gpurnn.GRU
    if case.cell == "lstm":
        layer = gpurnn.LSTM(case.input, case.hidden)
    else:
        layer = gpurnn.GRU(case.input, case.hidden, reset_after=case.cell == "gru-after")
    layer.load_params(_params(weights))
    return layer


def build(case: Case, weights: Arrays) -> Run:
    layer = _layer(case, weights)

    def run(x: F32) -> F32:
        y: F32 = layer(x)[0]
        return y

    return run


def build_step(case: Case, weights: Arrays) -> Step:
    stream = _layer(case, weights).stream(batch_size=case.batch)
    out = np.empty((case.batch, case.hidden), np.float32)

    def step(x_t: F32) -> F32:
        stream.step(x_t, out=out)
        return out

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    layer = _layer(case, weights)
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
