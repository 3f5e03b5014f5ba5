"""ONNX Runtime's CPU provider: one session per case. GRU: linear_before_reset 0 and 1."""

from __future__ import annotations

import numpy as np
import onnxruntime

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from bench.harness.errors import Unsupported
from bench.peers.onnx_model import layer_model
from bench.peers.peer import Run, Step, Train

_threads = 1


def version() -> str:
    return str(onnxruntime.__version__)


def set_threads(n: int) -> None:
    global _threads
    _threads = n


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def build(case: Case, weights: Arrays) -> Run:
    session = _session(layer_model(case, weights, steps=case.seq, state=False).SerializeToString())

    def run(x: F32) -> F32:
        y: F32 = session.run(["Y"], {"X": x})[0]
        return y.reshape(case.seq, case.batch, case.hidden)

    return run


def build_step(case: Case, weights: Arrays) -> Step:
    session = _session(layer_model(case, weights, steps=1, state=True).SerializeToString())
    names = ["h", "c"] if case.cell == "lstm" else ["h"]
    outputs = [f"Y_{name}" for name in names]
    feed = {f"{name}_0": np.zeros((1, case.batch, case.hidden), np.float32) for name in names}

    def step(x_t: F32) -> F32:
        feed["X"] = x_t[None]
        state = session.run(outputs, feed)
        for name, value in zip(names, state, strict=True):
            feed[f"{name}_0"] = value
        h: F32 = state[0][0]
        return h

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    raise Unsupported("ONNX Runtime's CPU package does not train")


def in_our_layout(case: Case, gradients: Arrays) -> Arrays:
    return gradients
