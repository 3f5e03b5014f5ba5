"""Weights of an ONNX graph: initialisers and constants, and values that nodes make of them by moving numbers about.

A damaged or hostile file gives a ValueError here: sizes are compared with what the file holds before anything is made, chains
have an end, and only files beside the model are read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gpurnn_kernels.quantised import from_bf16
from gpurnn_kernels.spec import Array

from .graph import Scope
from .quantised import Linear, dequantized

MOVERS = ("Transpose", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Reshape", "Identity")
CHAIN = 100  # nodes between an initialiser and an operator, at most
NODES = 1000  # nodes that make one weight, at most
ALL_NODES = 4 * NODES  # nodes that make all weights that are asked for, at most
DEQUANTIZE = "DequantizeLinear"
DEQUANTIZE_OPTIONS = {"axis", "block_size", "output_dtype"}
GROWTH = 16  # times the file's size is what may be computed from it


class Constants:
    """The constants of one model."""

    def __init__(self, model: Any, folder: Path | None, opset: int) -> None:
        self._folder, self._opset = folder, opset
        self._known: dict[tuple[int, str], Array] = {}
        self._model = model
        self._held: int | None = None  # bytes in the model
        self._beside: dict[Path, int] = {}  # bytes in other files
        self._beside_read = self._made = self._all_nodes = 0

    def of(self, scope: Scope, name: str, label: str) -> Array:
        """Gives the value of a name. `label` says in errors what it is for."""
        self._nodes = 0
        return self._value(scope, name, label, ())

    def linear(self, scope: Scope, name: str, label: str) -> Linear | None:
        """Gives the integers of a value that DequantizeLinear makes of integers in the model; None for any other value."""
        for _ in range(CHAIN):
            holder = scope.holder(name)
            if holder is None or name in holder.tensors or name not in holder.producers:
                return None
            scope, node = holder, holder.producers[name]
            if node.op_type == DEQUANTIZE and node.domain in ("", "ai.onnx"):
                self._nodes = 0
                return self._linear(scope, node, label, ((id(holder), name),))
            if node.op_type != "Identity" or len(node.input) != 1:
                return None
            name = node.input[0]
        return None

    def _linear(self, scope: Scope, node: Any, label: str, path: tuple[tuple[int, str], ...]) -> Linear:
        given = [None if not one else self._value(scope, one, label, path) for one in node.input]
        options = {one.name: one.i for one in node.attribute}
        if len(given) not in (2, 3) or given[0] is None or options.get("block_size") or options.keys() - DEQUANTIZE_OPTIONS:
            raise ValueError(f"{label}: {DEQUANTIZE} with {len(given)} inputs and {', '.join(options) or 'no options'}")
        return dequantized(label, given[0], given[1], given[2] if len(given) == 3 else None, options.get("axis", 1))

    def zeros(self, tensor: Any, label: str) -> str:
        """Tells whether a tensor of the model holds "zeros" alone, or "numbers"."""
        return "numbers" if self._tensor(tensor, label).any() else "zeros"

    def _value(self, scope: Scope, name: str, label: str, path: tuple[tuple[int, str], ...]) -> Array:
        holder = scope.holder(name)
        if holder is None:
            raise ValueError(f"{label}: {name!r} is missing: no initialiser, input or node of the graph has that name")
        key = (id(holder), name)
        if key in self._known:
            return self._known[key]
        if key in path:
            raise ValueError(f"{label}: {name!r} is computed from itself")
        if len(path) >= CHAIN:
            raise ValueError(f"{label}: computed by a chain of more than {CHAIN} nodes")
        if name in holder.tensors:
            value = self._tensor(holder.tensors[name], label)
        elif name in holder.producers:
            value = self._computed(holder, holder.producers[name], name, label, (*path, key))
        else:
            raise ValueError(f"{label}: {name!r} is an input of the graph, not a constant; weights must be in the model")
        self._known[key] = value
        return value

    def _computed(self, scope: Scope, node: Any, name: str, label: str, path: tuple[tuple[int, str], ...]) -> Array:
        constant = node.op_type == "Constant"
        known = constant or node.op_type in (*MOVERS, DEQUANTIZE)
        if node.domain not in ("", "ai.onnx") or not known or len(node.output) != 1:
            raise ValueError(
                f"{label}: {name!r} is computed by {node.op_type}; weights must be initialisers, constants, or made from "
                f"those by {', '.join((*MOVERS, DEQUANTIZE))}"
            )
        if any(one.HasField("g") or one.ref_attr_name for one in node.attribute):
            raise ValueError(f"{label}: {node.op_type} has attributes that it cannot have")
        self._nodes += 1
        self._all_nodes += 1
        if self._nodes > NODES or self._all_nodes > ALL_NODES:
            raise ValueError(f"{label}: computed by more than {NODES} nodes, or all weights by more than {ALL_NODES}")
        if constant and len(node.attribute) == 1 and node.attribute[0].name == "value":
            return self._tensor(node.attribute[0].t, label)
        if node.op_type == DEQUANTIZE:
            linear = self._linear(scope, node, label, path)
            self._spend(4 * linear.integers.size, label)
            return linear.floats()
        given = [None if not one else self._value(scope, one, label, path) for one in node.input]
        if node.op_type in ("Concat", "Cast"):  # the two that can grow
            self._spend(8 * sum(0 if one is None else one.size for one in given), label)
        value = self._run(node, given, label)
        self._spend(value.nbytes, label)
        return value

    def _run(self, node: Any, given: list[Array | None], label: str) -> Array:
        from onnx import TypeProto, helper
        from onnx.reference import ReferenceEvaluator

        feeds = {name: value for name, value in zip(node.input, given, strict=True) if value is not None}
        inputs, outputs = ([helper.make_value_info(name, TypeProto()) for name in names] for names in (feeds, node.output))
        try:
            graph = helper.make_graph([node], "one", inputs, outputs)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
            (value,) = ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # whatever an evaluator may raise on nonsense
            raise ValueError(f"{label}: {node.op_type} cannot be computed: {error}") from None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiuV":
            raise ValueError(f"{label}: {node.op_type} gives no array of numbers")
        return value

    def _spend(self, size: int, label: str) -> None:
        if self._held is None:
            self._held = self._model.ByteSize()
        self._made += size
        if self._made > GROWTH * (self._held + sum(self._beside.values())) + (1 << 20):
            raise ValueError(f"{label}: more is computed from the model's constants than {GROWTH} times their size")

    def _tensor(self, tensor: Any, label: str) -> Array:
        import onnx
        from onnx import TensorProto, numpy_helper

        if tensor is None:
            raise ValueError(f"{label}: sparse tensors are not read")
        types = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
        if tensor.data_type not in types | {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64}:
            named = {number: name for name, number in TensorProto.DataType.items()}
            held = named.get(tensor.data_type, f"type {tensor.data_type}")
            raise ValueError(f"{label}: {tensor.name!r} holds {held}; expected floating-point numbers")
        if min(tensor.dims, default=0) < 0 or len(tensor.dims) > 8:
            raise ValueError(f"{label}: {tensor.name!r} has the shape {tuple(tensor.dims)}")
        count = math.prod(tensor.dims)
        halves = tensor.data_type == TensorProto.BFLOAT16  # which NumPy has no dtype for: they are widened
        dtype = np.dtype(np.uint16) if halves else onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if tensor.data_location == TensorProto.EXTERNAL:
            found = self._read_beside(tensor, count * dtype.itemsize, dtype, label)
            return from_bf16(found) if halves else found
        stored = len(tensor.raw_data) // dtype.itemsize if tensor.HasField("raw_data") else _elements(tensor)
        if stored != count:
            raise ValueError(f"{label}: {tensor.name!r} claims the shape {tuple(tensor.dims)} and holds {stored} numbers")
        if halves:
            whole = (
                np.frombuffer(tensor.raw_data, "<u2") if tensor.HasField("raw_data") else np.array(tensor.int32_data, np.int64)
            )
            return from_bf16(whole.astype(np.uint16)).reshape(tuple(tensor.dims))
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{label}: {tensor.name!r} cannot be read: {error}") from None

    def _read_beside(self, tensor: Any, size: int, dtype: np.dtype[Any], label: str) -> Array:
        """Reads weights from a file beside the model."""
        entries = {one.key: one.value for one in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise ValueError(f"{label}: {tensor.name!r} lies in the file {location!r}; hand over the model's path")
        folder = self._folder.resolve()
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise ValueError(f"{label}: {tensor.name!r} lies in {location!r}, outside of the model's folder")
        if not file.is_file():
            raise ValueError(f"{label}: {tensor.name!r} lies in {location!r}, which is missing")
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError:
            raise ValueError(f"{label}: {tensor.name!r} has a damaged place in {location!r}") from None
        if length != size or offset < 0 or offset + size > file.stat().st_size:
            raise ValueError(
                f"{label}: {tensor.name!r} claims {size} bytes from {offset} of {location!r}, which has {file.stat().st_size}"
            )
        self._beside[file] = file.stat().st_size
        self._beside_read += size
        if self._beside_read > GROWTH * sum(self._beside.values()):
            raise ValueError(f"{label}: more is read than {GROWTH} times what the files beside the model hold")
        with file.open("rb") as data:
            data.seek(offset)
            return np.frombuffer(data.read(size), dtype.newbyteorder("<")).astype(dtype).reshape(tuple(tensor.dims))


def _elements(tensor: Any) -> int:
    """Counts the numbers in the fields that are not raw."""
    fields = (tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data)
    return max(len(field) for field in fields)
