"""The attributes and weights of the ONNX operators LSTM and GRU, as a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gpurnn_kernels.spec import Array

from ... import gates
from ...gates import Kind, Source
from ...layers.make import Layer, converted
from ..integers import Weights, chosen
from .graph import DYNAMIC

ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}
DIRECTIONS = ("forward", "reverse", "bidirectional")
DEFAULTS: dict[str, Any] = {
    **{"direction": "forward", "layout": 0, "linear_before_reset": 0, "input_forget": 0, "clip": None, "hidden_size": None},
    **{"activations": None, "activation_alpha": None, "activation_beta": None},
}


class Operator(NamedTuple):
    """The attributes and weights of an operator LSTM or GRU, without the inputs of a call."""

    kind: Kind
    attributes: Mapping[str, Any]
    W: Array  # (D, G*H, I)
    R: Array  # (D, G*H, H)
    B: Array | None = None  # (D, 2*G*H)
    P: Array | None = None  # (D, 3*H)
    label: str = ""
    integers: Mapping[str, list[Weights]] = {}  # of W and R, a matrix for each direction, where the model has them

    def scaled(self, factor: float) -> Operator:
        """Gives the operator with all weights times a factor."""
        arrays = {letter: getattr(self, letter) for letter in "WRBP"}
        return self._replace(
            **{letter: array * array.dtype.type(factor) for letter, array in arrays.items() if array is not None}
        )


def attributes_of(node: Any, opset: int) -> dict[str, Any]:
    """Gives a node's attributes, defaults included. Raises ValueError for those that the operator does not have."""
    import onnx

    given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    none = ["layout", "linear_before_reset"] if node.op_type == DYNAMIC else ["layout"] * (opset < 14)
    unknown = [name for name in given if name not in DEFAULTS or name in none]
    if unknown:
        of = "" if node.op_type == DYNAMIC else f" of opset {opset}"
        raise ValueError(f"{node.name}: {node.op_type}{of} has no attribute {', '.join(unknown)}")
    found = DEFAULTS | given
    found["direction"] = _text(found["direction"])
    if found["activations"] is not None:
        found["activations"] = [_text(one) for one in found["activations"]]
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def layer_of(operator: Operator, precision: str | None = None) -> Layer:
    """Makes the layer of an operator, with a precision of its own. Raises ValueError for one that no layer represents,
    NotImplementedError for integers that are not symmetric around zero."""
    kind, attributes, W, R, B, P, label, integers = operator
    precision = chosen(precision, len(integers) == 2)
    direction = attributes["direction"]
    if direction not in DIRECTIONS:
        raise ValueError(f"{label}: direction: expected one of {', '.join(DIRECTIONS)}, got {direction!r}")
    count = 2 if direction == "bidirectional" else 1
    _check_activations(kind, attributes["activations"], count, label)
    gate_count = 4 if kind == "LSTM" else 3
    if W.ndim != 3 or R.ndim != 3:
        raise ValueError(f"{label}: expected W (D, G*H, I) and R (D, G*H, H), got shapes {W.shape} and {R.shape}")
    inputs, hidden = W.shape[2], R.shape[2]
    rows = gate_count * hidden
    wanted = {"W": (count, rows, inputs), "R": (count, rows, hidden), "B": (count, 2 * rows), "P": (count, 3 * hidden)}
    for letter, array in zip("WRBP", (W, R, B, P), strict=True):
        if array is not None and array.shape != wanted[letter]:
            raise ValueError(f"{label}: {letter}: expected shape {wanted[letter]} for {direction}, got {array.shape}")
        if array is not None and array.dtype != W.dtype:
            raise ValueError(f"{label}: {letter}: expected W's dtype {W.dtype}, got {array.dtype}")
    if W.dtype.kind != "f":
        raise ValueError(f"{label}: W: expected floating-point numbers, got {W.dtype}")
    if attributes["hidden_size"] not in (None, hidden):
        raise ValueError(f"{label}: hidden_size {attributes['hidden_size']}, but R has {hidden} columns")
    reset_after = kind == "GRU" and bool(attributes["linear_before_reset"])
    configuration = {
        **{"input_size": inputs, "hidden_size": hidden, "bias": B is not None, "batch_first": bool(attributes["layout"])},
        **{"bidirectional": count == 2, "reverse": direction == "reverse", "reset_after": reset_after, "dtype": W.dtype},
        **{"peepholes": P is not None, "input_forget": bool(attributes["input_forget"]), "clip": _clip(attributes, label)},
        "precision": precision,
    }
    directions = [
        gates.direction(kind, gates.ONNX, _source(operator, index, precision), reset_after) for index in range(count)
    ]
    return converted(kind, configuration, [directions])


def _source(operator: Operator, index: int, precision: str | None) -> Source:
    _, _, W, R, B, P, _, integers = operator
    b_x, b_h = (None, None) if B is None else (B[index, : B.shape[1] // 2], B[index, B.shape[1] // 2 :])
    peephole = None if P is None else gates.reorder(P[index], gates.ONNX_PEEPHOLES, gates.OUR_PEEPHOLES)
    W_x, W_h = (
        integers[one][index].of(precision) if one in integers else floats[index] for one, floats in (("W", W), ("R", R))
    )
    return Source(W_x, W_h, b_x, b_h, peephole=peephole)


def _clip(attributes: Mapping[str, Any], label: str) -> float | None:
    clip = attributes["clip"]
    if clip is None:
        return None
    if not clip > 0:
        raise ValueError(f"{label}: clip: expected a number above 0, got {clip}")
    return float(clip)


def _check_activations(kind: Kind, given: Any, count: int, label: str) -> None:
    wanted = ACTIVATIONS[kind] * count
    if given and tuple(one.lower() for one in given) != wanted:
        raise ValueError(f"{label}: activations {', '.join(given)} cannot be represented, only {', '.join(wanted)} can")
