"""ONNX models with gpurnn's LSTM and GRU inside, and ONNX Runtime's DynamicQuantizeLSTM:

    evaluator = onnx.reference.ReferenceEvaluator("model.onnx", new_ops=[gpurnn.interop.onnx.LSTM, gpurnn.interop.onnx.GRU])
    evaluator.run(None, {"input": x})

`operators("int8")` gives all three with a precision, to be handed over in the same place.

Beyond ONNX's own evaluator these know sequence_lens, and clip, input_forget and peepholes as far as gpurnn has them;
what it has not raises NotImplementedError or ValueError, never a different result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from gpurnn_kernels.spec import Array

from ..convert.onnx.operator import DEFAULTS, Operator, layer_of
from ..convert.onnx.quantised import exact, of_dynamic
from ..layers.description import Kind


class _Recurrent(OpRun):
    op_domain = ""
    precision: str | None = None

    def __init__(self, onnx_node: Any, run_params: Any, schema: Any = None) -> None:
        super().__init__(onnx_node, run_params, schema)
        self._weights: list[Array | None] = []
        self._layer: Any = None

    def _run(
        self,
        X: Array,  # (T, B, I), or (B, T, I) with layout=1
        W: Array,  # (D, G*H, I)
        R: Array,  # (D, G*H, H)
        B: Array | None = None,  # (D, 2*G*H)
        sequence_lens: Array | None = None,  # (B,)
        initial_h: Array | None = None,  # (D, B, H), or (B, D, H)
        initial_c: Array | None = None,
        P: Array | None = None,  # (D, 3*H)
        *integers: Array | None,  # what says which numbers W and R stand for
        **attributes: Any,
    ) -> tuple[Array, ...]:
        """Gives Y (T, D, B, H), or (B, T, D, H); Y_h and Y_c (D, B, H), or (B, D, H)."""
        layer = self._layer_of([W, R, B, P, *integers], attributes)
        swap = layer.batch_first
        state = [None if one is None else one.swapaxes(0, 1) if swap else one for one in (initial_h, initial_c)]
        y, final = layer(X, _state(layer, state, X.shape[0 if swap else 1]), sequence_lens)
        finals = final if len(layer.states) == 2 else (final,)
        by_direction = y.reshape(*y.shape[:2], layer.directions, layer.hidden_size)
        Y = by_direction if swap else by_direction.swapaxes(1, 2)
        found = (Y, *(one.swapaxes(0, 1) if swap else one for one in finals))
        return found[: len(self.onnx_node.output)]

    def _layer_of(self, weights: list[Array | None], attributes: dict[str, Any]) -> Any:
        """Gives the layer of these weights: the last call's, if they are the same."""
        if self._layer is None or not all(map(_same, weights, self._weights)):
            given = {name: value for name, value in attributes.items() if name in DEFAULTS and value is not None}
            self._layer = layer_of(self._operator(DEFAULTS | given, *weights), self.precision)
            self._weights = [None if one is None else one.copy() for one in weights]
        return self._layer

    def _operator(self, attributes: dict[str, Any], W: Any, R: Any, B: Array | None, P: Array | None) -> Operator:
        kind: Kind = "LSTM" if self.onnx_node.op_type == "LSTM" else "GRU"
        return Operator(kind, attributes, W, R, B, P, self.onnx_node.name or kind)


class LSTM(_Recurrent):
    """The operator LSTM of ONNX, opset 7 and later."""


class GRU(_Recurrent):
    """The operator GRU of ONNX, opset 7 and later, both forms."""


class DynamicQuantizeLSTM(_Recurrent):
    """The operator DynamicQuantizeLSTM of ONNX Runtime, whose W and R are integers and lie transposed."""

    op_domain = "com.microsoft"

    def _operator(self, attributes: dict[str, Any], *weights: Any) -> Operator:
        W, R, B, P, W_scale, W_zero_point, R_scale, R_zero_point = weights
        label = self.onnx_node.name or "DynamicQuantizeLSTM"
        linear = {
            "W": of_dynamic(f"{label}: W", W, W_scale, W_zero_point),
            "R": of_dynamic(f"{label}: R", R, R_scale, R_zero_point),
        }
        floats = {letter: one.floats() for letter, one in linear.items()}
        return Operator("LSTM", attributes, **floats, B=B, P=P, label=label, integers=exact(linear, self.precision))


def operators(precision: str | None = None) -> list[type[OpRun]]:
    """Gives `LSTM`, `GRU` and `DynamicQuantizeLSTM` for `new_ops`, their products with a precision: "bf16", "int8", "float32",
    or None for that of the dtype, and "int8" for weights that are integers.

    evaluator = ReferenceEvaluator("model.onnx", new_ops=gpurnn.interop.onnx.operators("int8"))
    """
    return [type(one.__name__, (one,), {"precision": precision}) for one in (LSTM, GRU, DynamicQuantizeLSTM)]


def _same(new: Array | None, old: Array | None) -> bool:
    """Compares arrays bit for bit; the arrays themselves may have been changed in place."""
    if new is None or old is None:
        return new is old
    return new.shape == old.shape and new.dtype == old.dtype and np.array_equal(_bits(new), _bits(old))


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _state(layer: Any, given: list[Array | None], batch: int) -> Any:
    """Gives the state for a call; ONNX may give one of its two arrays alone."""
    if all(one is None for one in given):
        return None
    zeros = np.zeros((layer.directions, batch, layer.hidden_size), layer.dtype)
    h, c = (zeros if one is None else one for one in given)
    return (h, c) if len(layer.states) == 2 else h
