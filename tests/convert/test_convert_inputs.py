"""Inputs beside x that a model itself hands to an LSTM or GRU: refused where a layer would lose them, never dropped."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gpurnn.convert import from_onnx

onnx = pytest.importorskip("onnx")
import onnx_models as om  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

STATE = np.full((1, 2, 4), 0.5, np.float32)
EXPAND = np.array([1, 2, 4])


def model(extra: str, nodes: Sequence[Any] = (), inputs: Sequence[str] = ("X",), kind: str = "LSTM", **tensors: Any) -> Any:
    """An operator with one more input, which tensors, nodes or inputs of the graph give."""
    weights = om.weights(kind, 3, 4)
    return om.model_of([*nodes, om.node_of(kind, {"X", *weights, extra}, 4)], weights | tensors, inputs=inputs)


def node(kind: str, *inputs: str, to: str = "h0", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [to], **attributes)


def constant(name: str, array: Any) -> Any:
    return node("Constant", to=name, value=numpy_helper.from_array(np.asarray(array), f"{name}_value"))


def branch(name: str) -> Any:
    return helper.make_graph([node("Identity", name, to="b")], "b", [], [])


ROWS = [node("Shape", "X", to="s"), node("Gather", "s", "one", to="r")]
KEPT = {
    "initial_h": lambda: model("h0", h0=STATE),
    "initial_c": lambda: model("c0", c0=STATE),
    "gru": lambda: model("h0", kind="GRU", h0=STATE),
    "node": lambda: model("h0", [constant("h0", STATE)]),
    "expanded": lambda: model("h0", [node("Expand", "h", "e")], h=STATE[:, :1], e=EXPAND),
    "expanded-to-rows": lambda: model("h0", [*ROWS, node("Expand", "h", "r")], h=STATE, one=np.array([1])),
    "filled": lambda: model("h0", [node("ConstantOfShape", "e", value=numpy_helper.from_array(STATE[0, 0, :1]))], e=EXPAND),
    "moved": lambda: model("h0", [node("Transpose", "h", to="t"), node("Identity", "t")], h=STATE),
    "computed": lambda: model("h0", [node("Tanh", "h")], h=STATE),
    "of-zeros": lambda: model("h0", [node("Cos", "h")], h=0 * STATE),
    "by-sizes": lambda: model("h0", [*ROWS, node("Cast", "r", to="f"), node("Mul", "h", "f")], h=STATE, one=np.array([1])),
    "default": lambda: model("h0", inputs=("X", "h0"), h0=STATE),
    "branches": lambda: model(
        "h0", [node("If", "f", then_branch=branch("h"), else_branch=branch("h"))], h=STATE, f=np.array(1)
    ),
    "lengths": lambda: model("lens", lens=np.array([1, 2], np.int32)),
    "no-lengths": lambda: model("lens", lens=np.zeros(2, np.int32)),
    "lengths-moved": lambda: model("lens", [*ROWS, node("Expand", "n", "r", to="lens")], n=np.array([5]), one=np.array([1])),
}


@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT.keys())
def test_constants_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"ONNX model: rnn: (initial_[hc]|sequence_lens) is '\w+', a constant of the model"):
        from_onnx(make())


GIVEN = {
    "zeros": lambda: model("h0", h0=0 * STATE),
    "zeros-of-rows": lambda: model("h0", [*ROWS, node("ConstantOfShape", "r")], one=np.array([1])),
    "zeros-expanded": lambda: model("h0", [*ROWS, node("Expand", "h", "r")], h=0 * STATE, one=np.array([1])),
    "input": lambda: model("h0", inputs=("X", "h0")),
    "of-an-input": lambda: model("h0", [node("Add", "h", "g")], inputs=("X", "g"), h=STATE),
    "chosen": lambda: model("h0", [node("Gather", "h", "g")], inputs=("X", "g"), h=STATE),
    "of-another-layer": lambda: model("h0", [node("Tanh", "X")]),
    "branches": lambda: model(
        "h0", [node("If", "f", then_branch=branch("g"), else_branch=branch("h"))], ("X", "g", "f"), h=STATE
    ),
    "lengths": lambda: model("lens", inputs=("X", "lens")),
    "lengths-of-x": lambda: model("lens", [*ROWS, node("Expand", "r", "n", to="lens")], n=np.array([2]), one=np.array([0])),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_a_call_gives_is_converted(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gpurnn"):
        layer = from_onnx(GIVEN[name]())
    assert layer.hidden_size == 4
    assert ("is an input of the operator" in caplog.text) != name.startswith("zeros")


def test_the_state_of_a_loop_is_given_by_the_loop() -> None:
    """A name that the body of a Loop is handed is none of the model's constants."""
    weights = om.weights("LSTM", 3, 4)
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("n", 7), ("go", 9), ("h0", 1))]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("go", 9), ("Y_h", 1))]
    body = helper.make_graph([om.node_of("LSTM", {"X", "h0", *weights}, 4)], "body", inputs, outputs)
    loop = helper.make_node("Loop", ["", "flag", "start"], ["Y"], body=body)
    assert from_onnx(om.model_of([loop], weights | {"start": STATE})).hidden_size == 4


def test_an_initial_state_that_is_missing() -> None:
    with pytest.raises(ValueError, match="initial_h: 'h0' is missing"):
        from_onnx(model("h0"))
