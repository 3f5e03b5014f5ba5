"""ONNX's weights of fewer bits: DynamicQuantizeLSTM, DequantizeLinear, float16 and bfloat16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import gpurnn
from gpurnn.convert import from_onnx, list_onnx

onnx = pytest.importorskip("onnx")
import onnx_models as om  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

ORDER = {"LSTM": [2, 0, 1, 3], "GRU": [0, 1, 2]}  # our gates among ONNX's: f, i, o, g among i, o, f, c
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
I, H = 7, 9
OPSET = 19  # of DequantizeLinear that ONNX's evaluator knows
ARRANGED = [(1, "one", 1), (2, "one", 1), (2, "direction", 0), (1, "row", 1), (1, "row", -2)]  # D, scales, axis


def integers(kind: str, D: int, scales: str, zero: int = 0, dtype: str = "int8") -> dict[str, Any]:
    """W and R as integers (D, G*H, K) with scales and zero points. scales: "one", or one for each "direction" or "row"."""
    rng, rows = np.random.default_rng(0), len(ORDER[kind]) * H
    found: dict[str, Any] = {}
    for letter, columns in (("W", I), ("R", H)):
        values = rng.integers(-128, 128, (D, rows, columns)) + (128 if dtype == "uint8" else 0)
        shape = {"one": (), "direction": (D,), "row": (D, rows)}[scales]
        found[letter] = values.astype(dtype)
        found[f"{letter}_scale"] = rng.uniform(0.003, 0.005, shape).astype(np.float32)
        found[f"{letter}_zero_point"] = np.full(shape, zero, dtype)
    return found


def dynamic(given: dict[str, Any], D: int, **attributes: Any) -> Any:
    """A model of one DynamicQuantizeLSTM, whose weights lie transposed."""
    B = om.weights("LSTM", I, H, D)["B"]
    tensors = {name: one.transpose(0, 2, 1) if name in "WR" else one for name, one in given.items()} | {"B": B}
    names = ["X", "W", "R", "B", "", "", "", "", "W_scale", "W_zero_point", "R_scale", "R_zero_point"]
    inputs = [one if one == "X" or one in tensors else "" for one in names]
    node = helper.make_node("DynamicQuantizeLSTM", inputs, ["Y"], "rnn", domain="com.microsoft", hidden_size=H, **attributes)
    model = om.model_of([node], tensors)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def behind(kind: str, given: dict[str, Any], D: int, axis: int = 1, **attributes: Any) -> Any:
    """A model of one operator whose weights DequantizeLinear makes."""
    tensors = {"B": om.weights(kind, I, H, D)["B"]} | {name + "_q" * (name in "WR"): one for name, one in given.items()}
    nodes = [
        helper.make_node(
            "DequantizeLinear",
            [f"{letter}_q", f"{letter}_scale"] + [f"{letter}_zero_point"] * (f"{letter}_zero_point" in given),
            [letter],
            axis=axis,
        )
        for letter in "WR"
    ]
    return om.model_of([*nodes, om.node_of(kind, {"X", "W", "R", "B"}, H, **attributes)], tensors, OPSET)


def assert_exact(layer: Any, kind: str, given: dict[str, Any]) -> None:
    """The parameters are the numbers that the model stands for, the integers the model's less their zero points."""
    D, order = given["W"].shape[0], ORDER[kind]
    for letter, own in (("W", "W_x"), ("R", "W_h")):
        q, scale, zero = (given[letter + end] for end in ("", "_scale", "_zero_point"))
        scale, zero = (one.reshape(*one.shape, *[1] * (3 - one.ndim)) for one in (scale, zero))
        moved = q.astype(int) - zero.astype(int)
        floats = (q.astype(np.float32) - zero.astype(np.float32)) * scale
        for index in range(D):
            reverse = layer.reverse or index == 1
            name = "layers.0." + "reverse." * reverse + own
            sorted_integers, sorted_floats = (
                np.stack(np.split(one[index], len(order)))[order] for one in (moved.astype(np.int8), floats)
            )
            if kind == "GRU":
                sorted_floats[0] *= -1
            assert_same_bits(layer._prepared.integers[name].values, sorted_integers.reshape(q.shape[1:]))
            assert_same_bits(layer.params[name], sorted_floats.reshape(q.shape[1:]))


def errors(layer: Any, model: Any) -> tuple[float, float]:
    """The rms of what the layer's outputs differ by from the model's in ONNX Runtime, and of those."""
    onnxruntime = pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).standard_normal((20, 4, I)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"X": x})[0].transpose(0, 2, 1, 3).reshape(20, 4, -1)
    return float(np.sqrt(np.mean((layer(x)[0] - wanted) ** 2))), float(np.sqrt(np.mean(wanted**2)))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("scales", ["direction", "row"])
@pytest.mark.parametrize(("dtype", "zero"), [("int8", 0), ("uint8", 128)])
def test_dynamic(direction: str, scales: str, dtype: str, zero: int) -> None:
    D = DIRECTIONS[direction]
    given = integers("LSTM", D, scales, zero, dtype)
    model = dynamic(given, D, direction=direction)
    layer = from_onnx(model)
    assert layer.precision == "int8"
    assert_exact(layer, "LSTM", given)
    wrong, size = errors(layer, model)
    assert wrong < 0.03 * size
    (found,) = list_onnx(model)
    assert found[:6] == ("rnn", "DynamicQuantizeLSTM", I, H, 1, D)


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_onnx_runtime_makes(per_channel: bool, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnx.save(om.simple("LSTM", I, H, 2, direction="bidirectional"), tmp_path / "m.onnx")
    quantization.quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx", per_channel=per_channel)
    layer = from_onnx(tmp_path / "q.onnx")
    assert layer.precision == "int8"
    wrong, size = errors(layer, onnx.load(tmp_path / "q.onnx"))
    assert wrong < 0.03 * size
    layer.save(tmp_path / "m.safetensors")
    x = np.random.default_rng(0).standard_normal((5, 3, I)).astype(np.float32)
    assert_same_bits(gpurnn.load(tmp_path / "m.safetensors")(x)[0], layer(x)[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(("D", "scales", "axis"), ARRANGED)
@pytest.mark.parametrize(("dtype", "zero"), [("int8", 0), ("uint8", 128)])
def test_dequantize(kind: str, D: int, scales: str, axis: int, dtype: str, zero: int) -> None:
    given = integers(kind, D, scales, zero, dtype)
    held = {name: one[0] if scales == "row" and name not in "WR" else one for name, one in given.items()}
    if zero == 0:
        held = {name: one for name, one in held.items() if "zero" not in name}
    attributes = {"direction": "bidirectional" if D == 2 else "forward"} | (
        {"linear_before_reset": 1} if kind == "GRU" else {}
    )
    model = behind(kind, held, D, axis, **attributes)
    layer = from_onnx(model)
    assert layer.precision == "int8"
    assert_exact(layer, kind, given)
    x = np.random.default_rng(0).standard_normal((9, 4, I)).astype(np.float32)
    wanted = ReferenceEvaluator(model).run(None, {"X": x})[0].transpose(0, 2, 1, 3).reshape(9, 4, -1)
    floats = from_onnx(model, precision="float32")
    assert floats.precision is None
    assert_same_bits(floats.params, layer.params)
    assert np.abs(floats(x)[0] - wanted).max() < 1e-5
    assert np.sqrt(np.mean((layer(x)[0] - wanted) ** 2)) < 0.02 * np.sqrt(np.mean(wanted**2))
    assert list_onnx(model)[0].note.endswith(f"{dtype} weights")


def test_other_precisions() -> None:
    model = dynamic(integers("LSTM", 1, "row"), 1)
    exact = from_onnx(model)
    for precision in ("float32", "bf16", "tf32"):
        layer = from_onnx(model, precision=precision)
        assert layer.precision == (None if precision == "float32" else precision)
        assert not layer._prepared.integers
        assert_same_bits(layer.params, exact.params)


def test_options_of_the_operator() -> None:
    given = integers("LSTM", 1, "row")
    layer = from_onnx(dynamic(given, 1, clip=2.0, input_forget=1))
    assert (layer.clip, layer.input_forget) == (2.0, True)
    assert_exact(layer, "LSTM", given)


@pytest.mark.parametrize("bias", [False, True])
def test_nodes_between(bias: bool) -> None:
    """Identity is looked through; numbers that are moved after DequantizeLinear are floats."""
    given = integers("LSTM", 1, "one")
    model = behind("LSTM", given, 1)
    if bias:
        q = numpy_helper.from_array(np.arange(8 * H, dtype=np.int32).reshape(1, -1), "B_q")
        scale = numpy_helper.from_array(np.float32(0.01), "B_scale")
        model.graph.initializer.extend([q, scale])
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["B_q", "B_scale"], ["B"]))
        del model.graph.initializer[0]
    for node in [one for one in model.graph.node if one.op_type == "DequantizeLinear"]:
        node.output[0] += "_same"
    for letter in "WRB" if bias else "WR":
        model.graph.node.insert(3, helper.make_node("Identity", [f"{letter}_same"], [letter]))
    layer = from_onnx(model)
    assert_exact(layer, "LSTM", given)
    for node in model.graph.node:
        if node.op_type == "Identity":
            node.op_type = "Transpose"
            node.attribute.append(helper.make_attribute("perm", [0, 1] if node.output[0] == "B" else [0, 1, 2]))
    floats = from_onnx(model)
    assert floats.precision is None
    assert_same_bits(floats.params, layer.params)


ZERO = {
    "dynamic": lambda: dynamic(integers("LSTM", 1, "row", 3, "uint8"), 1),
    "dequantize": lambda: behind("LSTM", integers("LSTM", 1, "one", 3, "uint8"), 1),
    "signed": lambda: behind("GRU", integers("GRU", 1, "one", -3), 1, linear_before_reset=1),
}


@pytest.mark.parametrize("where", ZERO)
def test_zero_points(where: str) -> None:
    with pytest.raises(NotImplementedError, match=r"rnn: W: zero points: its integers .* lie in .*precision='float32'"):
        from_onnx(ZERO[where]())
    floats = from_onnx(ZERO[where](), precision="float32")
    assert floats.precision is None
    assert floats.with_precision("int8").precision == "int8"


def test_scales_of_columns() -> None:
    given = integers("LSTM", 1, "one")
    given |= {f"{letter}_scale": np.full(size, 0.004, np.float32) for letter, size in (("W", I), ("R", H))}
    given = {name: one for name, one in given.items() if "zero" not in name}
    model = behind("LSTM", given, 1, axis=2)
    with pytest.raises(NotImplementedError, match="rnn: W: scales: it has one for each column"):
        from_onnx(model)
    assert from_onnx(model, precision="float32").precision is None


def broken(**changes: Any) -> dict[str, Any]:
    return integers("LSTM", 1, "direction") | changes


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no scale": (lambda: dynamic({name: one for name, one in broken().items() if name != "W_scale"}, 1), "no input W_scale"),
    "zero": (
        lambda: dynamic(broken(R_scale=np.zeros(1, np.float32)), 1),
        "R: scales: row 0: expected a scale above 0",
    ),
    "nan": (lambda: dynamic(broken(W_scale=np.full(1, np.nan, np.float32)), 1), "W: scales: row 0: .* got nan"),
    "negative": (lambda: dynamic(broken(W_scale=np.full(1, -1, np.float32)), 1), "W: scales: row 0: .* got -1"),
    "shape": (
        lambda: dynamic(broken(W_scale=np.ones(2, np.float32)), 1),
        r"W_scale: expected float32 of shape .* float32 \(2,\)",
    ),
    "scale dtype": (lambda: dynamic(broken(W_scale=np.ones(1)), 1), "W_scale: expected float32 of shape .* got float64"),
    "zero dtype": (lambda: dynamic(broken(W_zero_point=np.zeros(1, np.uint8)), 1), "W_zero_point: expected int8 of shape"),
    "floats": (lambda: dynamic(broken(W=np.ones((1, 4 * H, I), np.float32)), 1), r"W: expected 8-bit integers \(D, K, 4\*H\)"),
    "layout": (lambda: dynamic(broken(), 1, layout=1), "DynamicQuantizeLSTM has no attribute layout"),
    "bare": (
        lambda: om.model_of(
            [om.node_of("LSTM", {"X", "W", "R"}, H)],
            {"W": np.ones((1, 4 * H, I), np.int8), "R": np.ones((1, 4 * H, H), np.int8)},
        ),
        "W: expected floating-point numbers, got int8",
    ),
    "axis": (
        lambda: behind("LSTM", integers("LSTM", 1, "row"), 1, axis=1),
        "scale: expected one for all, or one for each of axis 1",
    ),
    "far axis": (
        lambda: behind("LSTM", integers("LSTM", 2, "direction"), 2, axis=7, direction="bidirectional"),
        "scale: expected one for all, or one for each of axis 7",
    ),
    "blocks": (lambda: _with_blocks(behind("LSTM", integers("LSTM", 1, "one"), 1)), "DequantizeLinear with 3 inputs"),
    "integers of floats": (
        lambda: behind("LSTM", integers("LSTM", 1, "one") | {"W": np.ones((1, 4 * H, I), np.float32)}, 1),
        "expected 8-bit or 32-bit integers, got float32",
    ),
    "an input": (lambda: _without(behind("LSTM", integers("LSTM", 1, "one"), 1), "W_q"), "'W_q' is missing"),
    "the wide": (
        lambda: behind("LSTM", integers("LSTM", 1, "one") | {"W": np.ones((1, 4 * H, I), np.int32)}, 1),
        "zero point: expected int32, got int8",
    ),
}


def _with_blocks(model: Any) -> Any:
    model.graph.node[0].attribute.append(helper.make_attribute("block_size", 2))
    return model


def _without(model: Any, name: str) -> Any:
    for index, one in enumerate(model.graph.initializer):
        if one.name == name:
            del model.graph.initializer[index]
            return model
    raise AssertionError(name)


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    make, match = REFUSED[what]
    with pytest.raises(ValueError, match=match):
        from_onnx(make())


def test_the_domain_counts() -> None:
    """An operator of that name in ONNX's own domain is none, nor are LSTMs of other domains."""
    model = dynamic(integers("LSTM", 1, "row"), 1)
    model.graph.node[0].domain = ""
    with pytest.raises(ValueError, match="no LSTM or GRU in it"):
        from_onnx(model)
    other = om.simple()
    other.graph.node[0].domain = "com.microsoft"
    with pytest.raises(ValueError, match="no LSTM or GRU in it"):
        from_onnx(other)


# --- halves ---


def stored(array: Any, name: str, raw: bool = True) -> Any:
    """A tensor of bfloat16, which NumPy has no dtype for."""
    bits = (array.view(np.uint32) >> 16).astype(np.uint16)
    tensor = TensorProto(name=name, data_type=TensorProto.BFLOAT16, dims=array.shape)
    if raw:
        tensor.raw_data = bits.astype("<u2").tobytes()
    else:
        tensor.int32_data.extend(int(one) for one in bits.ravel())
    return tensor


def assert_halves(layer: Any, wanted: dict[str, Any], kind: str = "GRU") -> None:
    assert layer.precision is None
    assert layer.dtype == np.float32
    floats = om.model_of([om.node_of(kind, {"X", *wanted}, H, linear_before_reset=1)], wanted)
    assert_same_bits(layer.params, from_onnx(floats).params)


def test_float16() -> None:
    """Widened, which is exact; sums of two biases are rounded to float32."""
    tensors = {name: one.astype(np.float16) for name, one in om.weights("GRU", I, H).items()}
    node = om.node_of("GRU", {"X", *tensors}, H, linear_before_reset=1)
    layer = from_onnx(om.model_of([node], tensors, dtype="float16"))
    assert_halves(layer, {name: one.astype(np.float32) for name, one in tensors.items()})
    assert from_onnx(om.model_of([node], tensors, dtype="float16"), precision="bf16").precision == "bf16"


@pytest.mark.parametrize("where", ["raw", "numbers", "beside", "moved"])
def test_bfloat16(where: str, tmp_path: Path) -> None:
    exact = {name: (one.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, one in om.weights("GRU", I, H).items()}
    model = om.model_of([om.node_of("GRU", {"X", *exact}, H, linear_before_reset=1)], exact)
    tensors = [stored(one, name, where != "numbers") for name, one in exact.items()]
    if where == "beside":
        (tmp_path / "w.bin").write_bytes(b"".join(one.raw_data for one in tensors))
        at = 0
        for one in tensors:
            size = len(one.raw_data)
            one.ClearField("raw_data")
            one.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "w.bin"), ("offset", at), ("length", size)):
                one.external_data.add(key=key, value=str(value))
            at += size
    del model.graph.initializer[:]
    if where == "moved":
        tensors[0].name = "W_same"
        model.graph.node.insert(0, helper.make_node("Cast", ["W_same"], ["W"], to=TensorProto.BFLOAT16))
    model.graph.initializer.extend(tensors)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert_halves(from_onnx(tmp_path / "m.onnx"), exact)
