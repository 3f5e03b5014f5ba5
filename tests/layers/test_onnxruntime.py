"""Layers against ONNX Runtime, with peepholes, clip and coupled gates too."""

from typing import Any

import numpy as np
import pytest
from helpers import OUTPUTS, Floats, Problem, assert_near
from reference import packed, parts


def onnx_rows(cell: str, a: Floats) -> Floats:
    """Our order of gates to ONNX's: i o f c | z r h, its z in the opposite sense."""
    if cell == "lstm":
        f, i, o, g = np.split(a, 4)
        return np.concatenate([i, o, f, g])
    z, r, n = np.split(a, 3)
    return np.concatenate([-z, r, n])


ONNX_KINDS = [
    {"cell": cell, "clip": clip, **more}
    for clip in (None, 0.4, 1.5)
    for cell, more in [
        *(("lstm", {"peepholes": p, "input_forget": c}) for p in (False, True) for c in (False, True)),
        ("gru", {}),
        ("gru_after", {}),
    ]
]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ONNX_KINDS, ids=str)
def test_against_onnx_runtime(kind: dict[str, Any], direction: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    cell = kind["cell"]
    options = {name: value for name, value in kind.items() if name != "cell"}
    more = {} if direction == "forward" else {direction: True}
    p = Problem(cell, 9, 4, 5, 12, lengths=[9, 1, 4, 7], **options, **more)
    p.x = 3 * np.nan_to_num(p.x)
    y, last = run_onnx(p, direction, options)
    assert_near(p.run(), (y, last), OUTPUTS["float32"])


def run_onnx(p: Problem, direction: str, options: dict[str, Any]) -> tuple[Floats, Any]:
    import onnxruntime
    from onnx import TensorProto, helper

    H = p.sizes[1]
    inputs = {"X": p.x, **onnx_weights(p, H), "lengths": np.array(p.lengths, np.int32)}
    inputs |= dict(zip(("h_0", "c_0"), parts(p.state), strict=False))
    order = ["X", "W", "R", "B", "lengths", "h_0", *(["c_0"] if p.cell == "lstm" else []), *(["P"] if "P" in inputs else [])]
    attributes: dict[str, Any] = {"hidden_size": H, "direction": direction}
    if options.get("clip"):
        attributes["clip"] = options["clip"]
    if p.cell == "lstm":
        attributes["input_forget"] = int(options["input_forget"])
    else:
        attributes["linear_before_reset"] = int(p.cell == "gru_after")
    outputs = ["Y", "h_n", *(["c_n"] if p.cell == "lstm" else [])]
    node = helper.make_node("LSTM" if p.cell == "lstm" else "GRU", order, outputs, **attributes)
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    declared = [helper.make_tensor_value_info(name, kinds[inputs[name].dtype], inputs[name].shape) for name in order]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], "one", declared, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    y, *last = session.run(None, inputs)
    return y.transpose(0, 2, 1, 3).reshape(*p.x.shape[:2], -1), packed(last)


def onnx_weights(p: Problem, H: int) -> dict[str, Floats]:
    """W, R, B (D, 8*H or 6*H) and, with peepholes, P."""
    directions = sorted({name[: name.rindex(".") + 1] for name in p.params}, key=lambda prefix: "reverse" in prefix)
    found: dict[str, list[Floats]] = {"W": [], "R": [], "B": [], "P": []}
    for prefix in directions:
        b = onnx_rows(p.cell, p.params[prefix + "b"])
        second = np.zeros_like(b)
        if p.cell == "gru_after":
            second[2 * H :] = p.params[prefix + "b_hn"]
        found["W"].append(onnx_rows(p.cell, p.params[prefix + "W_x"]))
        found["R"].append(onnx_rows(p.cell, p.params[prefix + "W_h"]))
        found["B"].append(np.concatenate([b, second]))
        if prefix + "peephole" in p.params:
            p_f, p_i, p_o = np.split(p.params[prefix + "peephole"], 3)
            found["P"].append(np.concatenate([p_i, p_o, p_f]))
    return {name: np.stack(arrays) for name, arrays in found.items() if arrays}
