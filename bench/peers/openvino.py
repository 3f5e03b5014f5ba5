"""OpenVINO's CPU plugin, from the same ONNX bytes; its precision is asked for, since it may compute in bfloat16 by itself."""

from __future__ import annotations

import numpy as np
import openvino

from bench.harness.cases import FLOAT32, Case
from bench.harness.data import F32, Arrays, Layers
from bench.harness.errors import Unsupported
from bench.peers.onnx_model import recurrent_model, state_names
from bench.peers.peer import Run, Step, Train

_core = openvino.Core()
_threads = 1
_HINTS = {FLOAT32: "f32", "bf16": "bf16"}


def version() -> str:
    return str(openvino.get_version())


def set_threads(n: int) -> None:
    global _threads
    _threads = n


def _compile(model: bytes, precision: str) -> openvino.CompiledModel:
    if precision not in _HINTS:
        raise Unsupported("OpenVINO has int8 of models alone that another package, NNCF, has quantised")
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": _threads,
        "NUM_STREAMS": 1,
    }
    return _core.compile_model(_core.read_model(model), "CPU", options)


def build(case: Case, weights: Layers, precision: str) -> Run:
    model = recurrent_model(case, weights, steps=case.seq, state=False).SerializeToString()
    compiled = _compile(model, precision)
    request = compiled.create_infer_request()
    y, shape = compiled.output("Y"), (case.seq, case.batch, case.outputs)
    lengths = {"lengths": np.array(case.lengths, np.int32)} if case.ragged else {}

    def run(x: F32) -> F32:
        result: F32 = request.infer({"X": x, **lengths}, share_inputs=True, share_outputs=True)[y]
        return result.reshape(shape)

    return run


def build_step(case: Case, weights: Layers, precision: str) -> Step:
    compiled = _compile(recurrent_model(case, weights, steps=1, state=True).SerializeToString(), precision)
    request = compiled.create_infer_request()
    before, after = state_names(case)
    y, outputs = compiled.output("Y"), [compiled.output(name) for name in after]
    feed: dict[str, F32] = {name: np.zeros((1, case.batch, case.hidden), np.float32) for name in before}

    def step(x_t: F32) -> F32:
        feed["X"] = x_t[None]
        result = request.infer(feed, share_inputs=True, share_outputs=False)
        for name, output in zip(before, outputs, strict=True):
            feed[name] = result[output]
        h: F32 = result[y][0, 0]
        return h

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    raise Unsupported("OpenVINO does not train")


def in_our_layout(case: Case, gradients: Arrays) -> Arrays:
    return gradients
