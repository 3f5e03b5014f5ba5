"""The ONNX model of a case, in memory: gate orders i, o, f, c and z, r, h; shapes fixed, state in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bench.harness.cases import Case
from bench.harness.data import Arrays
from bench.peers.gates import theirs
from gpurnn.gates import ONNX

OPSET = 14
IR_VERSION = 8


def layer_model(case: Case, weights: Arrays, *, steps: int, state: bool) -> ModelProto:
    """X (T, B, I) -> Y (T, 1, B, H), Y_h and, for the LSTM, Y_c; with `state`, also from h_0 and c_0 (1, B, H)."""
    lstm = case.cell == "lstm"
    w = theirs(case, weights, ONNX)
    T, B, I, H = steps, case.batch, case.input, case.hidden
    initializers = [
        numpy_helper.from_array(w.W_x[None], "W"),
        numpy_helper.from_array(w.W_h[None], "R"),
        numpy_helper.from_array(np.concatenate((w.b_x, w.b_h))[None], "bias"),
    ]
    states = ["h", "c"] if lstm else ["h"]
    node_inputs = ["X", "W", "R", "bias"] + (["", *(f"{name}_0" for name in states)] if state else [])
    attributes: dict[str, Any] = {} if lstm else {"linear_before_reset": int(case.cell == "gru-after")}
    node = helper.make_node(
        "LSTM" if lstm else "GRU", node_inputs, ["Y", *(f"Y_{name}" for name in states)], hidden_size=H, **attributes
    )
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [T, B, I])]
    if state:
        inputs += [helper.make_tensor_value_info(f"{name}_0", TensorProto.FLOAT, [1, B, H]) for name in states]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [T, 1, B, H])]
    outputs += [helper.make_tensor_value_info(f"Y_{name}", TensorProto.FLOAT, [1, B, H]) for name in states]
    graph = helper.make_graph([node], case.cell, inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
