"""ONNX Runtime's CPU provider: one session per case. GRU: linear_before_reset 0 and 1.

int8: `quantize_dynamic` makes DynamicQuantizeLSTM, with signed weights and a scale for each of their rows.
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from onnx import ModelProto

from bench.harness.cases import FLOAT32, Case
from bench.harness.data import F32, Arrays, Layers
from bench.harness.errors import Unsupported
from bench.peers.onnx_model import recurrent_model, state_names
from bench.peers.peer import Run, Step, Train

_threads = 1


def version() -> str:
    return str(onnxruntime.__version__)


def set_threads(n: int) -> None:
    global _threads
    _threads = n


def _session(case: Case, model: ModelProto, precision: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    found = model.SerializeToString() if precision == FLOAT32 else _quantised(case, model, precision)
    return onnxruntime.InferenceSession(found, options, providers=["CPUExecutionProvider"])


def _quantised(case: Case, model: ModelProto, precision: str) -> bytes:
    if precision != "int8":
        raise Unsupported(f"ONNX Runtime's CPU provider has no LSTM in {precision}")
    if case.cell != "lstm":
        raise Unsupported("ONNX Runtime has no int8 GRU")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to optimise the graph first
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "int8.onnx")
            quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], per_channel=True, weight_type=QuantType.QInt8)
            return path.read_bytes()
    finally:
        logging.disable(before)


def build(case: Case, weights: Layers, precision: str) -> Run:
    session = _session(case, recurrent_model(case, weights, steps=case.seq, state=False), precision)
    shape = case.seq, case.batch, case.outputs
    lengths = {"lengths": np.array(case.lengths, np.int32)} if case.ragged else {}

    def run(x: F32) -> F32:
        y: F32 = session.run(["Y"], {"X": x, **lengths})[0]
        return y.reshape(shape)

    return run


def build_step(case: Case, weights: Layers, precision: str) -> Step:
    session = _session(case, recurrent_model(case, weights, steps=1, state=True), precision)
    before, after = state_names(case)
    outputs = ["Y", *after]
    feed = {name: np.zeros((1, case.batch, case.hidden), np.float32) for name in before}

    def step(x_t: F32) -> F32:
        feed["X"] = x_t[None]
        y, *state = session.run(outputs, feed)
        feed.update(zip(before, state, strict=True))
        h: F32 = y[0, 0]
        return h

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    raise Unsupported("ONNX Runtime's CPU package does not train")


def in_our_layout(case: Case, gradients: Arrays) -> Arrays:
    return gradients
