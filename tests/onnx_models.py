"""ONNX models around one recurrent operator, for tests."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = {"LSTM": ["X", "W", "R", "B", "lens", "h0", "c0", "P"], "GRU": ["X", "W", "R", "B", "lens", "h0"]}


def weights(kind: str, I: int, H: int, D: int = 1, *, letters: str = "WRB", dtype: str = "float32") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = (4 if kind == "LSTM" else 3) * H
    shapes = {"W": (D, rows, I), "R": (D, rows, H), "B": (D, 2 * rows), "P": (D, 3 * H)}
    return {letter: rng.uniform(-1, 1, shapes[letter]).astype(dtype) for letter in letters}


def node_of(kind: str, given: Any, H: int, name: str = "rnn", **attributes: Any) -> Any:
    """given: names of inputs that are there."""
    inputs = [one if one in given else "" for one in INPUTS[kind]]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if kind == "LSTM" else 2]
    return helper.make_node(kind, inputs, outputs, name=name, hidden_size=H, **attributes)


def model_of(nodes: list[Any], tensors: dict[str, Any], opset: int = 14, dtype: str = "float32", inputs: Any = ("X",)) -> Any:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, element, None) for name in inputs],
        [helper.make_tensor_value_info("Y", element, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def simple(kind: str = "LSTM", I: int = 3, H: int = 4, D: int = 1, **attributes: Any) -> Any:
    tensors = weights(kind, I, H, D)
    return model_of([node_of(kind, {"X", *tensors}, H, **attributes)], tensors)


def huge(name: str) -> Any:
    """A tensor that claims a terabyte."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1, 2**20, 2**18])
    tensor.raw_data = b"\0" * 64
    return tensor


def beside(name: str, shape: tuple[int, ...], **entries: Any) -> Any:
    """A tensor in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def replaced(model: Any, tensor: Any) -> Any:
    """A copy whose initialiser of that name is another."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [one for one in copy.graph.initializer if one.name != tensor.name]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend([*kept, tensor])
    return copy
