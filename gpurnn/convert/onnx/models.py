"""`gpurnn.from_onnx` and `list_onnx`: the recurrent operators of any model, wherever they stand in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.spec import Array

from ...layers.make import Layer
from .. import check
from ..found import Found, choose, named
from .check import runner
from .constants import Constants
from .graph import DYNAMIC, INPUTS, Node, recurrent
from .inputs import check_inputs
from .operator import Operator, attributes_of, layer_of
from .quantised import Linear, exact, of_dynamic

OPSET = 7  # the first with today's LSTM and GRU


@np.errstate(all="ignore")  # a caller's "raise" is not meant for the rounding of weights
def from_onnx(path_or_model: Any, node: str | None = None, *, precision: str | None = None) -> Layer:
    """Makes a layer with the weights of an operator LSTM or GRU, or of ONNX Runtime's DynamicQuantizeLSTM.

        lstm = gpurnn.from_onnx("model.onnx", "/encoder/LSTM")

    Args:
        path_or_model: a file, or an `onnx.ModelProto`. Opset 7 and later.
        node: which of several, by its name or an output's; subgraphs (If, Loop) are searched too.
        precision: of the layer's products, "bf16", "int8", "tf32" or "float32"; None is "int8" for weights that are 8-bit
            integers, which the layer takes as they are, and the dtype's for others.

    Returns a layer with batch_first where the operator has layout=1, reset_after where it has linear_before_reset=1, clip,
    peepholes and input_forget as it has them; float32 for weights of fewer bits. Its y is (T, B, D*H) where the operator's is
    (T, D, B, H). Initial states and sequence_lens are arguments of a call: state and lengths; an operator for which the model
    has constants there, other than states of zeros, is refused. Raises ValueError for operators that cannot be represented and
    for damaged files, FileNotFoundError, TypeError, NotImplementedError for options that are not built, and for integers that
    are not symmetric around zero or have other scales than one for each row.
    """
    model = _Model.read(path_or_model)
    with named(model.label):
        found = choose(model.candidates, node, _names, model.found, "node=...")
        operator = model.operator(found, precision)
        layer = layer_of(operator, precision)
        check_inputs(found, model.constants)
    factor = check.scale(layer)
    run = runner(operator.scaled(factor))
    if run is not None:
        check.agree(layer, run, f"{model.label}: {found.label}")
    return layer


@np.errstate(all="ignore")
def list_onnx(path_or_model: Any) -> list[Found]:
    """Lists every LSTM, GRU and DynamicQuantizeLSTM of a model, subgraphs included, by name, kind, sizes and directions.

        for found in gpurnn.list_onnx("model.onnx"):
            print(found.name, found.kind, found.input_size, found.hidden_size)

    Sizes are None for weights that are no constants. Raises as `from_onnx` does for damaged files.
    """
    model = _Model.read(path_or_model)
    return [model.found(one) for one in model.candidates]


def _names(node: Node) -> list[str]:
    return [node.label, *(name for name in node.proto.output if name)]


class _Model(NamedTuple):
    label: str
    candidates: list[Node]
    constants: Constants
    opset: int

    @classmethod
    def read(cls, path_or_model: Any) -> _Model:
        if isinstance(path_or_model, (str, Path)):
            _check_file(Path(path_or_model))
        try:
            import onnx
        except ImportError:
            file = f"{path_or_model}: " if isinstance(path_or_model, (str, Path)) else ""
            raise ImportError(f"{file}reading ONNX models needs the onnx package: pip install onnx") from None
        folder: Path | None = None
        label = "ONNX model"
        model = path_or_model
        if isinstance(path_or_model, (str, Path)):
            source = Path(path_or_model)
            folder, label = source.parent, str(source)
            model = _load(onnx, source)
        elif not isinstance(path_or_model, onnx.ModelProto):
            raise TypeError(f"from_onnx: expected a path or an onnx.ModelProto, got {type(path_or_model).__name__}")
        opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
        with named(label):
            candidates = recurrent(model.graph)
        if not candidates and any(one.op_type in INPUTS for function in model.functions for one in function.node):
            raise ValueError(f"{label}: its LSTM and GRU stand in functions; inline them first with onnx.inliner")
        if opset < OPSET and any(one.proto.op_type != DYNAMIC for one in candidates):
            raise ValueError(f"{label}: opset {opset}; expected {OPSET} or later, whose LSTM and GRU are defined otherwise")
        return cls(label, candidates, Constants(model, folder, opset), opset)

    def found(self, node: Node) -> Found:
        name, kind, dynamic = node.proto.op_type, node.kind, node.proto.op_type == DYNAMIC
        hidden = next((int(one.i) for one in node.proto.attribute if one.name == "hidden_size"), None)
        try:
            attributes = attributes_of(node.proto, self.opset)
            shape = self.constants.of(node.scope, node.input("W"), f"{node.label}: W").shape
            rows, inputs = (shape[2], shape[1]) if dynamic else shape[1:]
            hidden = rows // (4 if kind == "LSTM" else 3)
            linear = self.constants.linear(node.scope, node.input("W"), f"{node.label}: W")
        except (ValueError, IndexError) as error:
            return Found(node.label, name, None, hidden, note=f"no sizes: {error}")
        notes = ["reverse"] if attributes["direction"] == "reverse" else []
        if kind == "GRU":
            notes.append(f"linear_before_reset={attributes['linear_before_reset']}")
        if linear is not None:
            notes.append(f"{linear.integers.dtype} weights")
        return Found(node.label, name, inputs, hidden, 1, 1 + (attributes["direction"] == "bidirectional"), ", ".join(notes))

    def operator(self, node: Node, precision: str | None) -> Operator:
        """precision: what the layer is asked to have; integers are read where it is "int8" in the end."""
        for letter in "WR":
            if not node.input(letter):
                raise ValueError(f"{node.label}: it has no input {letter}")
        linear = {letter: one for letter in "WR" if (one := self._linear(node, letter)) is not None}
        arrays: dict[str, Any] = dict.fromkeys("WRBP")
        for letter in arrays:
            if letter in linear:
                arrays[letter] = linear[letter].floats()
            elif node.input(letter):
                arrays[letter] = _wide(self._constant(node, letter))
        attributes, integers = attributes_of(node.proto, self.opset), exact(linear, precision)
        return Operator(node.kind, attributes, **arrays, label=node.label, integers=integers)

    def _linear(self, node: Node, letter: str) -> Linear | None:
        """Gives the integers of W or R, where the model has them."""
        if node.proto.op_type != DYNAMIC:
            return self.constants.linear(node.scope, node.input(letter), f"{node.label}: {letter}")
        values = [self._constant(node, f"{letter}{end}") for end in ("", "_scale", "_zero_point")]
        return of_dynamic(f"{node.label}: {letter}", *values)

    def _constant(self, node: Node, name: str) -> Array:
        if not node.input(name):
            raise ValueError(f"{node.label}: it has no input {name}")
        return self.constants.of(node.scope, node.input(name), f"{node.label}: {name}")


def _wide(array: Array) -> Array:
    """Gives float16 and bfloat16 as float32."""
    return np.asarray(array, np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _check_file(source: Path) -> None:
    if not source.exists():
        raise FileNotFoundError(f"no such file: {source}")
    if not source.is_file():
        raise ValueError(f"{source}: expected an ONNX file, got a folder or device")


def _load(onnx: Any, source: Path) -> Any:
    from google.protobuf.message import DecodeError

    try:
        # weights in other files are read where they are needed, and only from beside the model
        model = onnx.load(str(source), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{source}: not an ONNX file, or damaged: {error}") from None
    if not model.HasField("graph"):
        raise ValueError(f"{source}: not an ONNX model, or damaged: no graph in it")
    return model
