"""The operators LSTM and GRU run by ONNX Runtime or ONNX's own evaluator: a converted layer must agree with them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from ..check import Run
from .operator import Operator

OPSET, IR = 14, 8  # every reader of today knows them; the operators have not changed since but for dtypes


def runner(operator: Operator) -> Run | None:
    """Gives the operator as a function of arrays; None where nothing that is installed computes it."""
    model = _model(operator)
    run = _runtime(model, operator)
    attributes = operator.attributes
    # ONNX's own evaluator leaves these two out, without a word
    if run is None and not attributes["input_forget"] and attributes["clip"] is None:
        from onnx.reference import ReferenceEvaluator

        run = ReferenceEvaluator(model).run
    return None if run is None else _function(run, operator)


def _runtime(model: Any, operator: Operator) -> Any:
    if operator.W.dtype != np.float32:
        return None
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run
    except Exception as error:  # it has many kinds of its own
        logging.getLogger("gpurnn").debug("ONNX Runtime does not run the operator: %s", error)
        return None


def _model(operator: Operator) -> Any:
    from onnx import helper, numpy_helper

    kind = operator.kind
    lstm = kind == "LSTM"
    weights = {letter: array for letter in "WRBP" if (array := getattr(operator, letter)) is not None}
    dtype = helper.np_dtype_to_tensor_dtype(operator.W.dtype)
    inputs = ["X", "W", "R", "B" if operator.B is not None else "", "", "initial_h"]
    if lstm:
        inputs += ["initial_c", "P" if operator.P is not None else ""]
    outputs = ["Y", "Y_h", "Y_c"] if lstm else ["Y", "Y_h"]
    left_out = ("layout", "hidden_size") + (("linear_before_reset",) if lstm else ("input_forget",))
    attributes = {name: value for name, value in operator.attributes.items() if value is not None and name not in left_out}
    node = helper.make_node(kind, inputs, outputs, hidden_size=operator.R.shape[2], **attributes)
    given = ["X", "initial_h", "initial_c"] if lstm else ["X", "initial_h"]
    graph = helper.make_graph(
        [node],
        "check",
        [helper.make_tensor_value_info(name, dtype, [None] * 3) for name in given],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _function(run: Any, operator: Operator) -> Run:
    def call(x: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        names = ("X", "initial_h", "initial_c")
        y, *final = run(None, dict(zip(names, (x, *state), strict=False)))
        steps, directions, batch, hidden = y.shape
        return y.transpose(0, 2, 1, 3).reshape(steps, batch, directions * hidden), final

    return call
