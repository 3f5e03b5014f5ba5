"""`gpurnn.from_onnx` and `list_onnx`: the operators LSTM and GRU of any model, wherever they stand in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...layers.description import Kind
from ...layers.make import Layer
from .. import check
from ..found import Found, choose, named
from .check import runner
from .constants import Constants
from .graph import Node, recurrent
from .inputs import check_inputs
from .operator import Operator, attributes_of, layer_of

OPSET = 7  # the first with today's LSTM and GRU


@np.errstate(all="ignore")  # a caller's "raise" is not meant for the rounding of weights
def from_onnx(path_or_model: Any, node: str | None = None, *, precision: str | None = None) -> Layer:
    """Makes a layer with the weights of an LSTM or GRU operator.

        lstm = gpurnn.from_onnx("model.onnx", "/encoder/LSTM")

    Args:
        path_or_model: a file, or an `onnx.ModelProto`. Opset 7 and later.
        node: which of several, by its name or an output's; subgraphs (If, Loop) are searched too.
        precision: of the layer's products, "bf16", "int8" or "tf32"; None or "float32" for that of the dtype.

    Returns a layer with batch_first where the operator has layout=1, reset_after where it has linear_before_reset=1, clip,
    peepholes and input_forget as it has them. Its y is (T, B, D*H) where the operator's is (T, D, B, H). Initial states and
    sequence_lens are arguments of a call: state and lengths; an operator for which the model has constants there, other than
    states of zeros, is refused. Raises ValueError for operators that cannot be represented and for damaged files,
    FileNotFoundError, TypeError, NotImplementedError for options that are not built.
    """
    model = _Model.read(path_or_model)
    with named(model.label):
        chosen = choose(model.candidates, node, _names, model.found, "node=...")
        operator = model.operator(chosen)
        layer = layer_of(operator, precision)
        check_inputs(chosen, model.constants)
    factor = check.scale(layer)
    run = runner(operator.scaled(factor))
    if run is not None:
        check.agree(layer, run, f"{model.label}: {chosen.label}")
    return layer


@np.errstate(all="ignore")
def list_onnx(path_or_model: Any) -> list[Found]:
    """Lists every LSTM and GRU operator of a model, subgraphs included, by name, kind, sizes and directions.

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
        if not candidates and any(one.op_type in ("LSTM", "GRU") for function in model.functions for one in function.node):
            raise ValueError(f"{label}: its LSTM and GRU stand in functions; inline them first with onnx.inliner")
        if candidates and opset < OPSET:
            raise ValueError(f"{label}: opset {opset}; expected {OPSET} or later, whose LSTM and GRU are defined otherwise")
        return cls(label, candidates, Constants(model, folder, opset), opset)

    def found(self, node: Node) -> Found:
        kind: Kind = node.proto.op_type
        hidden = next((int(one.i) for one in node.proto.attribute if one.name == "hidden_size"), None)
        try:
            attributes = attributes_of(node.proto, self.opset)
            shape = self.constants.of(node.scope, node.input("W"), f"{node.label}: W").shape
            inputs, hidden = shape[2], shape[1] // (4 if kind == "LSTM" else 3)
        except (ValueError, IndexError) as error:
            return Found(node.label, kind, None, hidden, note=f"no sizes: {error}")
        notes = ["reverse"] if attributes["direction"] == "reverse" else []
        if kind == "GRU":
            notes.append(f"linear_before_reset={attributes['linear_before_reset']}")
        return Found(node.label, kind, inputs, hidden, 1, 1 + (attributes["direction"] == "bidirectional"), ", ".join(notes))

    def operator(self, node: Node) -> Operator:
        kind: Kind = node.proto.op_type
        arrays: dict[str, Any] = dict.fromkeys("WRBP")
        for letter in arrays:
            if name := node.input(letter):
                arrays[letter] = self.constants.of(node.scope, name, f"{node.label}: {letter}")
        for letter in "WR":
            if arrays[letter] is None:
                raise ValueError(f"{node.label}: it has no input {letter}")
        return Operator(kind, attributes_of(node.proto, self.opset), **arrays, label=node.label)


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
