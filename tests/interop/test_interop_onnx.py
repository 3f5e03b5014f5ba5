"""gpurnn.interop.onnx: ONNX's own test cases, and models, run by ONNX's evaluator with our operators inside."""

import importlib
from typing import Any

import numpy as np
import pytest
from conversions import few, near, sizes
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
import onnx_models as om  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from gpurnn.interop.onnx import GRU, LSTM  # noqa: E402

OPERATORS = [LSTM, GRU]


def node_cases() -> dict[str, Any]:
    """The ONNX project's, for these two operators."""
    cases = importlib.import_module("onnx.backend.test.case.node")
    for name in ("lstm", "gru"):
        importlib.import_module(f"onnx.backend.test.case.node.{name}")
    found = [case for case in cases._NodeTestCases if case.model.graph.node[0].op_type in ("LSTM", "GRU")]
    return {case.name: case for case in found}


CASES = node_cases()


def test_there_are_cases() -> None:
    assert len(CASES) >= 10


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_node_cases(case: Any) -> None:
    evaluator = ReferenceEvaluator(case.model, new_ops=OPERATORS)
    names = [one.name for one in case.model.graph.input]
    for given_arrays, wanted in case.data_sets:
        got = evaluator.run(None, dict(zip(names, given_arrays, strict=True)))
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert one.dtype == other.dtype
            near(one, other, "float32")


def model(kind: str, given_names: set[str], tensors: dict[str, Any], H: int, dtype: str, **attributes: Any) -> Any:
    inputs = [name for name in ("X", "h0", "c0", "lens") if name in given_names]
    node = om.node_of(kind, {*given_names, *tensors}, H, **attributes)
    made = om.model_of([node], tensors, dtype=dtype, inputs=inputs)
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made.graph.output.extend([onnx.helper.make_tensor_value_info(name, element, None) for name in node.output[1:]])
    for value in made.graph.input:
        if value.name == "lens":
            value.type.tensor_type.elem_type = onnx.TensorProto.INT32
    return made


@few
@given(
    *(st.sampled_from(["LSTM", "GRU"]), sizes, sizes, st.sampled_from(["forward", "reverse", "bidirectional"])),
    *(st.integers(0, 1), st.integers(0, 1), st.booleans(), st.sampled_from(["float32", "float64"])),
)
def test_against_onnx(
    kind: str, I: int, H: int, direction: str, layout: int, after: int, with_state: bool, dtype: str
) -> None:
    D, T, B = 2 if direction == "bidirectional" else 1, 4, 3
    attributes: dict[str, Any] = {"direction": direction, "layout": layout}
    attributes |= {"linear_before_reset": after} if kind == "GRU" else {}
    letters = "WRBP" if kind == "LSTM" else "WRB"
    state = {"LSTM": {"h0", "c0"}, "GRU": {"h0"}}[kind] if with_state else set()
    made = model(kind, {"X"} | state, om.weights(kind, I, H, D, letters=letters, dtype=dtype), H, dtype, **attributes)
    rng = np.random.default_rng(0)
    shapes = {"X": (B, T, I) if layout else (T, B, I)} | dict.fromkeys(state, (B, D, H) if layout else (D, B, H))
    feeds = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    wanted = ReferenceEvaluator(made).run(None, feeds)
    for one, other in zip(ReferenceEvaluator(made, new_ops=OPERATORS).run(None, feeds), wanted, strict=True):
        near(one, other, dtype)


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("LSTM", {}),
    "clip": ("LSTM", {"clip": 0.4}),
    "input_forget": ("LSTM", {"input_forget": 1}),
    "gru": ("GRU", {"linear_before_reset": 0}),
    "gru-after": ("GRU", {"linear_before_reset": 1}),
    "gru-clip": ("GRU", {"clip": 0.4}),
}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("option", OPTIONS)
def test_against_onnx_runtime(option: str, direction: str) -> None:
    """With sequence_lens and what ONNX's evaluator leaves out."""
    runtime = pytest.importorskip("onnxruntime")
    kind, attributes = OPTIONS[option]
    D = 2 if direction == "bidirectional" else 1
    names = {"X", "lens", "h0"} | ({"c0"} if kind == "LSTM" else set())
    made = model(kind, names, om.weights(kind, 3, 5, D), 5, "float32", direction=direction, **attributes)
    rng = np.random.default_rng(0)
    feeds = {"X": rng.standard_normal((6, 4, 3)), "lens": np.array([6, 2, 5, 1], np.int32)}
    feeds |= {name: rng.uniform(-1, 1, (D, 4, 5)) for name in names - {"X", "lens"}}
    feeds = {name: array if name == "lens" else array.astype(np.float32) for name, array in feeds.items()}
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    for one, other in zip(ReferenceEvaluator(made, new_ops=OPERATORS).run(None, feeds), session.run(None, feeds), strict=True):
        near(one, other, "float32")


def test_weights_that_change_between_calls() -> None:
    """They may be inputs of the graph."""
    tensors = om.weights("GRU", 3, 4)
    made = om.model_of([om.node_of("GRU", {"X", *tensors}, 4)], {}, inputs=["X", *tensors])
    evaluator = ReferenceEvaluator(made, new_ops=OPERATORS)
    x = np.ones((2, 1, 3), np.float32)
    for factor in (1, 2):
        for array in tensors.values():  # in place: the arrays stay the same objects
            array *= factor
        wanted = ReferenceEvaluator(made).run(None, {"X": x, **tensors})
        near(evaluator.run(None, {"X": x, **tensors})[0], wanted[0], "float32")


def test_what_cannot_be_is_refused() -> None:
    x = np.ones((2, 1, 3), np.float32)
    for attributes, match in (({"activations": ["Relu", "Tanh", "Tanh"]}, "Relu"), ({"clip": -1.0}, "clip")):
        with pytest.raises(ValueError, match=match):
            ReferenceEvaluator(om.simple(**attributes), new_ops=OPERATORS).run(None, {"X": x})
