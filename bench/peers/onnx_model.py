"""The ONNX model of a case, in memory: gate orders i, o, f, c and z, r, h; shapes fixed, state in and out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bench.harness.cases import Case
from bench.harness.data import Arrays, Layers
from bench.peers.gates import theirs
from gpurnn.gates import ONNX

OPSET = 14
IR_VERSION = 8


class Names(NamedTuple):
    """The names of a model's states of all layers, in the same order: as inputs and as outputs; h of a layer before its c."""

    before: list[str]
    after: list[str]


def state_names(case: Case) -> Names:
    """The names of h and, for the LSTM, c of each layer."""
    letters = "hc" if case.cell == "lstm" else "h"
    found = [f"{letter}_{layer}" for layer in range(case.layers) for letter in letters]
    return Names([f"{name}_before" for name in found], [f"{name}_after" for name in found])


def recurrent_model(case: Case, weights: Layers, *, steps: int, state: bool) -> ModelProto:
    """X (T, B, I) -> Y, (T, 1, B, H) or (T, B, 2*H), and the states (D, B, H) of all layers; with `state`, these are inputs
    too, and where rows are ragged `lengths` (B,) is."""
    T, B, D, H = steps, case.batch, case.directions, case.hidden
    before, after = state_names(case)
    nodes: list[NodeProto] = []
    shapes = {"one_direction": [1], "both_directions": [0, 0, D * H]}
    initializers = [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()]
    per_layer = len(before) // case.layers
    x = "X"
    for layer, directions in enumerate(weights):
        initializers += _weights(case, layer, directions)
        own = slice(per_layer * layer, per_layer * (layer + 1))
        node_inputs = [x, f"W_{layer}", f"R_{layer}", f"bias_{layer}", "lengths" if case.ragged else ""]
        node_inputs += before[own] if state else []
        last = layer == case.layers - 1
        raw = "Y" if last and D == 1 else f"raw_{layer}"
        nodes.append(
            helper.make_node(
                "LSTM" if case.cell == "lstm" else "GRU",
                node_inputs,
                [raw, *after[own]],
                hidden_size=H,
                **_attributes(case, layer),
            )
        )
        x = "Y" if last else f"X_{layer + 1}"
        nodes += _joined(raw, x, D) if raw != x else []
    floats = TensorProto.FLOAT
    states = [(D, B, H)] * len(before)
    inputs = [helper.make_tensor_value_info("X", floats, [T, B, case.input])]
    if case.ragged:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [B]))
    if state:
        inputs += [helper.make_tensor_value_info(name, floats, shape) for name, shape in zip(before, states, strict=True)]
    outputs = [helper.make_tensor_value_info("Y", floats, [T, 1, B, H] if D == 1 else [T, B, D * H])]
    outputs += [helper.make_tensor_value_info(name, floats, shape) for name, shape in zip(after, states, strict=True)]
    graph = helper.make_graph(nodes, case.cell, inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _weights(case: Case, layer: int, directions: tuple[Arrays, ...]) -> list[TensorProto]:
    found = [theirs(case, one, ONNX) for one in directions]
    arrays = {
        "W": np.stack([one.W_x for one in found]),
        "R": np.stack([one.W_h for one in found]),
        "bias": np.stack([np.concatenate((one.b_x, one.b_h)) for one in found]),
    }
    return [numpy_helper.from_array(array, f"{name}_{layer}") for name, array in arrays.items()]


def _attributes(case: Case, layer: int) -> dict[str, Any]:
    found: dict[str, Any] = {} if case.cell == "lstm" else {"linear_before_reset": int(case.cell == "gru-after")}
    if case.directions == 2:
        found["direction"] = "bidirectional"
    elif case.is_backward(layer, 0):
        found["direction"] = "reverse"
    return found


def _joined(raw: str, to: str, directions: int) -> list[NodeProto]:
    """(T, D, B, H) -> (T, B, D*H)."""
    if directions == 1:
        return [helper.make_node("Squeeze", [raw, "one_direction"], [to])]
    turned = f"{to}_turned"
    return [
        helper.make_node("Transpose", [raw], [turned], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [turned, "both_directions"], [to]),
    ]
