"""Layers with proj_size, peepholes, clip and input_forget against PyTorch and ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
from helpers import GRADIENTS, LAYERS, OUTPUTS, Floats, Problem, assert_gradients_near, assert_near
from problems import OptionProblem, every_dtype
from reference import packed, parts
from test_reference import from_torch, to_torch

# PyTorch


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@every_dtype
@pytest.mark.parametrize("layer", ["forward", "both", "stacked", "stacked-both", "no-bias", "batch-first-both"])
@pytest.mark.parametrize("lengths", [None, [2, 9, 1, 4]], ids=["full", "ragged"])
def test_projected_layers_against_torch(dtype: str, layer: str, lengths: list[int] | None) -> None:
    torch = pytest.importorskip("torch")
    p = OptionProblem("proj_size", 9, 4, 11, 35, dtype=dtype, lengths=lengths, proj_size=17, **LAYERS[layer])
    options = {"batch_first": p.batch_first, "bias": p.layer.bias, **p.options}
    module = torch.nn.LSTM(*p.sizes, dtype=getattr(torch, dtype), **options)
    theirs = dict(module.named_parameters())
    names = {name: torch_name(name) for name in p.params}
    with torch.no_grad():
        for target in theirs.values():
            target.zero_()
        for name, value in p.params.items():
            theirs[names[name]].copy_(torch.tensor(value if name.endswith("W_p") else to_torch("lstm", value)))
    x = torch.tensor(p.laid_out(np.nan_to_num(p.x)), requires_grad=True)
    first = [torch.tensor(s, requires_grad=True) for s in parts(p.state)]
    if lengths is None:
        y, last = module(x, packed(first))
    else:
        utilities = torch.nn.utils.rnn
        ragged = utilities.pack_padded_sequence(x, lengths, batch_first=p.batch_first, enforce_sorted=False)
        y, last = module(ragged, packed(first))
        y, _ = utilities.pad_packed_sequence(y, batch_first=p.batch_first, total_length=9)
    ends = zip(last, parts(p.dstate), strict=True)
    loss = (y * torch.tensor(p.laid_out(np.nan_to_num(p.dy)))).sum() + sum((s * torch.tensor(d)).sum() for s, d in ends)
    loss.backward()
    y, state = p.laid_out(y.detach().numpy()), packed([s.detach().numpy() for s in last])
    assert_near(p.run(), (y, state), 2 * OUTPUTS[dtype])
    expected = {"x": p.laid_out(x.grad.numpy()), "h_0": first[0].grad.numpy(), "c_0": first[1].grad.numpy()}
    for name in p.params:
        grad = theirs[names[name]].grad.numpy()
        expected[name] = grad if name.endswith("W_p") else from_torch("lstm", grad)
    assert_gradients_near(p.gradients(), expected, GRADIENTS[dtype])


def torch_name(name: str) -> str:
    """From "layers.1.reverse.W_p" to "weight_hr_l1_reverse"."""
    _, l, *reverse, kind = name.split(".")
    head = {"W_x": "weight_ih", "W_h": "weight_hh", "b": "bias_ih", "W_p": "weight_hr"}[kind]
    return f"{head}_l{l}{'_reverse' if reverse else ''}"


# ONNX Runtime


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
