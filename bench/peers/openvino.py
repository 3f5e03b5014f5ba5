"""OpenVINO's CPU plugin, from the same ONNX bytes; float32 is asked for, since it may compute in bfloat16 by itself."""

from __future__ import annotations

import numpy as np
import openvino

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from bench.harness.errors import Unsupported
from bench.peers.onnx_model import layer_model
from bench.peers.peer import Run, Step, Train

_core = openvino.Core()
_threads = 1


def version() -> str:
    return str(openvino.get_version())


def set_threads(n: int) -> None:
    global _threads
    _threads = n


def _compile(model: bytes) -> openvino.CompiledModel:
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": _threads,
        "NUM_STREAMS": 1,
    }
    return _core.compile_model(_core.read_model(model), "CPU", options)


def build(case: Case, weights: Arrays) -> Run:
    compiled = _compile(layer_model(case, weights, steps=case.seq, state=False).SerializeToString())
    request = compiled.create_infer_request()
    y = compiled.output("Y")

    def run(x: F32) -> F32:
        result: F32 = request.infer({"X": x}, share_inputs=True, share_outputs=True)[y]
        return result.reshape(case.seq, case.batch, case.hidden)

    return run


def build_step(case: Case, weights: Arrays) -> Step:
    compiled = _compile(layer_model(case, weights, steps=1, state=True).SerializeToString())
    request = compiled.create_infer_request()
    names = ["h", "c"] if case.cell == "lstm" else ["h"]
    outputs = [compiled.output(f"Y_{name}") for name in names]
    feed: dict[str, F32] = {f"{name}_0": np.zeros((1, case.batch, case.hidden), np.float32) for name in names}

    def step(x_t: F32) -> F32:
        feed["X"] = x_t[None]
        result = request.infer(feed, share_inputs=True, share_outputs=False)
        for name, output in zip(names, outputs, strict=True):
            feed[f"{name}_0"] = result[output]
        h: F32 = feed["h_0"][0]
        return h

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    raise Unsupported("OpenVINO does not train")


def in_our_layout(case: Case, gradients: Arrays) -> Arrays:
    return gradients
