"""from_onnx against ONNX's own equations, and ONNX Runtime where it is installed."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import dtypes, few, near, sizes
from hypothesis import given
from hypothesis import strategies as st

from gpurnn.convert import from_onnx, list_onnx
from gpurnn.convert.onnx.operator import ACTIVATIONS

onnx = pytest.importorskip("onnx")
import onnx_models as om  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def compare(layer: Any, run: Any, kind: str, steps: int = 5, batch: int = 3, layout: int = 0) -> None:
    """`run` gives what ONNX's operator gives for X, h0 and c0."""
    rng = np.random.default_rng(1)
    rows = (layer.directions, batch, layer.hidden_size)
    x = rng.standard_normal((steps, batch, layer.input_size)).astype(layer.dtype)
    h, c = (rng.uniform(-1, 1, rows).astype(layer.dtype) for _ in range(2))
    swap = (lambda a: a.swapaxes(0, 1)) if layout else (lambda a: a)
    feeds = {"X": swap(x), "h0": swap(h)} | ({"c0": swap(c)} if kind == "LSTM" else {})
    Y, *final = run(None, feeds)
    y, state = layer(swap(x), (h, c) if kind == "LSTM" else h)
    wanted = Y.reshape(batch, steps, -1) if layout else Y.transpose(0, 2, 1, 3).reshape(steps, batch, -1)
    near(y, wanted, layer.dtype.name)
    for one, other in zip(state if kind == "LSTM" else [state], final, strict=True):
        near(one, swap(other), layer.dtype.name)


def whole(kind: str, I: int, H: int, D: int, letters: str, dtype: str, **attributes: Any) -> Any:
    """A model of one node with initial states, and all its outputs."""
    tensors = om.weights(kind, I, H, D, letters=letters, dtype=dtype)
    inputs = ["X", "h0", "c0"] if kind == "LSTM" else ["X", "h0"]
    node = om.node_of(kind, {*inputs, *tensors}, H, **attributes)
    model = om.model_of([node], tensors, dtype=dtype, inputs=inputs)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.graph.output.extend([helper.make_tensor_value_info(name, element, None) for name in node.output[1:]])
    return model


@few
@given(
    st.sampled_from(["LSTM", "GRU"]),
    st.tuples(st.integers(1, 6), st.integers(1, 4), sizes, sizes),  # T, B, I, H
    *(st.sampled_from(list(DIRECTIONS)), st.booleans(), st.booleans(), st.booleans(), dtypes),
)
def test_operators(
    kind: str, shape: tuple[int, int, int, int], direction: str, after: bool, bias: bool, layout: bool, dtype: str
) -> None:
    steps, batch, I, H = shape
    attributes = {"direction": direction, "layout": int(layout)} | (
        {"linear_before_reset": int(after)} if kind == "GRU" else {}
    )
    model = whole(kind, I, H, DIRECTIONS[direction], "WRB" if bias else "WR", dtype, **attributes)
    layer = from_onnx(model)
    assert layer.batch_first == layout
    compare(layer, ReferenceEvaluator(model).run, kind, steps, batch, int(layout))
    (found,) = list_onnx(model)
    assert (found.name, found.kind, found.input_size, found.hidden_size) == ("rnn", kind, I, H)


OPTIONS = {
    "clip": ("LSTM", "WRB", {"clip": 0.3}),
    "clip-gru": ("GRU", "WRB", {"clip": 0.3}),
    "peepholes": ("LSTM", "WRBP", {}),
    "input_forget": ("LSTM", "WRB", {"input_forget": 1}),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_options(option: str, direction: str) -> None:
    """Against ONNX Runtime: ONNX's evaluator leaves clip and input_forget out."""
    kind, letters, attributes = OPTIONS[option]
    model = whole(kind, 3, 5, DIRECTIONS[direction], letters, "float32", direction=direction, **attributes)
    layer = from_onnx(model)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    compare(layer, session.run, kind)


def test_peepholes_are_reordered() -> None:
    layer = from_onnx(whole("LSTM", 3, 2, 1, "WRBP", "float32"))
    i, o, f = np.split(om.weights("LSTM", 3, 2, letters="WRBP")["P"][0], 3)
    assert np.array_equal(layer.params["layers.0.peephole"], np.concatenate([f, i, o]))


def constant(name: str, array: Any) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array), f"{name}_value"))


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 14, 22])
def test_computed_weights(opset: int) -> None:
    """Exporters leave weights like this: transposed, cut into gates, joined, squeezed, cast."""
    tensors = om.weights("LSTM", 3, 4, dtype="float64")
    W, R, B = (tensors[letter] for letter in "WRB")
    nodes = [
        helper.make_node("Transpose", ["Wt"], ["W1"], perm=[1, 0]),
        helper.make_node("Cast", ["W1"], ["W2"], to=1),
        constant("R1", R[0]),
        helper.make_node("Cast", ["R1"], ["R2"], to=1),
        constant("shape", np.array([1, 16, 4])),
        helper.make_node("Reshape", ["R2", "shape"], ["R3"]),
        helper.make_node("Identity", ["R3"], ["R4"]),
        helper.make_node("Concat", ["B2", "B1"], ["B3"], axis=1),
    ]
    initial = {"Wt": W[0].T, "b": B.astype("float32")}
    if opset >= 13:
        nodes.append(constant("zero", np.array([0])))
        nodes.append(helper.make_node("Unsqueeze", ["W2", "zero"], ["W3"]))
    else:
        nodes.append(helper.make_node("Unsqueeze", ["W2"], ["W3"], axes=[0]))
    if opset >= 10:
        for name, first, last in (("B1", 16, 32), ("B2", 0, 16)):
            nodes += [
                constant(f"{name}s", np.array([first])),
                constant(f"{name}e", np.array([last])),
                constant(f"{name}a", [1]),
            ]
            nodes.append(helper.make_node("Slice", ["b", f"{name}s", f"{name}e", f"{name}a"], [name]))
    else:
        nodes.append(helper.make_node("Slice", ["b"], ["B1"], starts=[16], ends=[32], axes=[1]))
        nodes.append(helper.make_node("Slice", ["b"], ["B2"], starts=[0], ends=[16], axes=[1]))
    rnn = helper.make_node("LSTM", ["X", "W3", "R4", "B3"], ["Y", "", ""], hidden_size=4)
    model = om.model_of([*nodes, rnn], initial, opset=opset)
    layer = from_onnx(model)
    plain = om.weights("LSTM", 3, 4, dtype="float64")
    expected = om.model_of(
        [helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y", "", ""], hidden_size=4)],
        {letter: array.astype("float32") for letter, array in plain.items()},
    )
    for name, array in from_onnx(expected).params.items():
        assert np.array_equal(layer.params[name], array)


@pytest.fixture
def nested() -> Any:
    """Two operators of one name in the branches of an If, and one in a Loop; their weights lie in graphs around them."""
    one, two = om.weights("GRU", 3, 4), om.weights("GRU", 3, 5)

    def branch(H: int, suffix: str) -> Any:
        node = helper.make_node("GRU", ["X", f"W{suffix}", f"R{suffix}"], [f"Y{suffix}"], name="rnn", hidden_size=H)
        return helper.make_graph([node], "branch", [], [helper.make_tensor_value_info(f"Y{suffix}", 1, None)])

    inner = helper.make_node("If", ["flag"], ["Yi"], then_branch=branch(4, "1"), else_branch=branch(5, "2"))
    body = helper.make_graph(
        [inner, helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in (("count", 7), ("go", 9))],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("Yi", 1, None)],
    )
    loop = helper.make_node("Loop", ["", "flag"], ["Y"], body=body)
    third = helper.make_node("LSTM", ["X", "W3", "R3"], ["Z"], hidden_size=2)
    tensors = {"W1": one["W"], "R1": one["R"], "W2": two["W"], "R2": two["R"]}
    last = om.weights("LSTM", 3, 2)
    return om.model_of([loop, third], {**tensors, "W3": last["W"], "R3": last["R"]})


def test_subgraphs(nested: Any, tmp_path: Path) -> None:
    path = tmp_path / "nested.onnx"
    onnx.save(nested, path)
    assert [(one.name, one.hidden_size) for one in list_onnx(path)] == [("rnn", 5), ("rnn", 4), ("Z", 2)]
    assert from_onnx(path, "Y1").hidden_size == 4
    assert from_onnx(str(path), "Y2").hidden_size == 5
    assert from_onnx(path, "Z").hidden_size == 2
    with pytest.raises(ValueError, match=r"3 recurrent layers; choose one by node=.*'rnn' \(GRU 3 -> 5"):
        from_onnx(path)
    with pytest.raises(ValueError, match="several recurrent layers are named 'rnn'"):
        from_onnx(path, "rnn")
    with pytest.raises(ValueError, match="no recurrent layers are named 'lstm'"):
        from_onnx(path, "lstm")


def test_weights_beside_the_model(tmp_path: Path) -> None:
    model = om.simple()
    wanted = from_onnx(model).params
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    for name, array in from_onnx(tmp_path / "m.onnx").params.items():
        assert np.array_equal(array, wanted[name])


def test_what_a_call_is_to_be_given_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tensors = om.weights("LSTM", 3, 4)
    node = om.node_of("LSTM", {"X", "W", "R", "h0", "lens"}, 4)
    with caplog.at_level(logging.INFO, "gpurnn"):
        from_onnx(om.model_of([node], tensors, inputs=["X", "h0", "lens"]))
    assert "initial_h is an input of the operator" in caplog.text
    assert "sequence_lens" in caplog.text


def test_activations_that_are_the_usual_ones() -> None:
    for kind in ("LSTM", "GRU"):
        names = [one.title() for one in ACTIVATIONS[kind]] * 2
        model = om.simple(kind, D=2, direction="bidirectional", activations=names)
        assert from_onnx(model).bidirectional


def dynamic() -> Any:
    tensors = om.weights("LSTM", 3, 4)
    return om.model_of([om.node_of("LSTM", {"X", *tensors}, 4)], {"W": tensors["W"], "B": tensors["B"]}, inputs=["X", "R"])


def computed() -> Any:
    tensors = om.weights("LSTM", 3, 4)
    tensors["R0"] = tensors.pop("R")
    nodes = [helper.make_node("Neg", ["R0"], ["R"]), om.node_of("LSTM", {"X", "W", "R", "B"}, 4)]
    return om.model_of(nodes, tensors)


def mixed() -> Any:
    return om.replaced(om.simple(), numpy_helper.from_array(om.weights("LSTM", 3, 4, dtype="float64")["R"], "R"))


REFUSED = {
    "activations": (lambda: om.simple(activations=["HardSigmoid", "Tanh", "Tanh"]), "HardSigmoid"),
    "one-activation": (lambda: om.simple(activations=["Relu"]), "Relu"),
    "direction": (lambda: om.simple(direction="sideways"), "sideways"),
    "directions": (lambda: om.simple(direction="bidirectional"), r"W: expected shape \(2, 16, 3\)"),
    "hidden": (lambda: om.model_of([om.node_of("LSTM", {"X", "W", "R", "B"}, 5)], om.weights("LSTM", 3, 4)), "hidden_size 5"),
    "clip": (lambda: om.simple(clip=-1.0), "clip: expected a number above 0"),
    "attribute": (lambda: om.simple(output_sequence=1), "no attribute output_sequence"),
    "layout": (lambda: om.model_of([om.node_of("GRU", {"X", "W", "R"}, 4, layout=1)], om.weights("GRU", 3, 4), 11), "layout"),
    "opset": (lambda: om.model_of([om.node_of("GRU", {"X", "W", "R"}, 4)], om.weights("GRU", 3, 4), 6), "opset 6; expected 7"),
    "dynamic": (dynamic, "'R' is an input of the graph"),
    "computed": (computed, "'R' is computed by Neg"),
    "mixed": (mixed, "R: expected W's dtype float32"),
    "none": (lambda: om.model_of([helper.make_node("Identity", ["X"], ["Y"])], {}), "no LSTM or GRU"),
}


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        from_onnx(make())


def test_sizes_that_nothing_tells() -> None:
    (found,) = list_onnx(computed())
    assert (found.input_size, found.hidden_size) == (3, 4)
    tensors = om.weights("LSTM", 3, 4)
    (found,) = list_onnx(om.model_of([om.node_of("LSTM", {"X", *tensors}, 4)], {"R": tensors["R"]}, inputs=["X", "W"]))
    assert (found.input_size, found.hidden_size) == (None, 4)
    assert "input of the graph" in found.note


def test_what_is_no_model() -> None:
    with pytest.raises(TypeError, match="got int"):
        from_onnx(3)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        from_onnx("nowhere.onnx")
    with pytest.raises(ValueError, match="folder"):
        from_onnx(Path(__file__).parent)


def test_functions_are_to_be_inlined() -> None:
    node = om.node_of("GRU", {"X", "W", "R"}, 4)
    function = helper.make_function("own", "f", ["X", "W", "R"], ["Y"], [node], [helper.make_opsetid("", 14)])
    model = om.model_of([helper.make_node("f", ["X", "W", "R"], ["Y"], domain="own")], om.weights("GRU", 3, 4, letters="WR"))
    model.functions.extend([function])
    model.opset_import.extend([helper.make_opsetid("own", 1)])
    with pytest.raises(ValueError, match=r"onnx\.inliner"):
        from_onnx(model)
    from onnx.inliner import inline_local_functions

    assert from_onnx(inline_local_functions(model)).hidden_size == 4
