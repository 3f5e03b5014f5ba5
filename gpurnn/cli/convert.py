"""`gpurnn convert`: a recurrent layer out of another framework's model file."""

import argparse
from pathlib import Path
from typing import Any

from .console import naming, say
from .parser import Commands, add_precision, check_output, command


def add(commands: Commands) -> None:
    parser = command(commands, run, "convert", "take a recurrent layer out of another framework's model file")
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="ONNX (.onnx), PyTorch (.pt, .pth, .safetensors) or Keras (.h5, .keras)"
    )
    parser.add_argument("output", type=Path, metavar="OUT.safetensors", help="the layer, for gpurnn.load and gpurnn run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--node", metavar="NAME", help="which one of several, in ONNX and Keras; gpurnn inspect lists them")
    which.add_argument("--prefix", metavar="P", help="which one of several, in PyTorch: encoder.lstm")
    parser.add_argument("--recurrent-activation", choices=("sigmoid",), help="for weights from a Keras before 2.3")
    add_precision(parser, "of the layer's products and of the weights in OUT (default: as the model has them)")


def run(args: argparse.Namespace) -> None:
    if args.output.suffix != ".safetensors":
        raise ValueError(f"{args.output}: expected a name that ends in .safetensors")
    check_output(args.output, args.model)
    with naming(args.model):
        layer = convert(args.model, args.node, args.prefix, args.recurrent_activation, args.precision)
    layer.save(args.output)
    count = sum(array.size for array in layer.params.values())
    say(f"{args.output}: {layer!r}, {count:,} parameters")


def convert(
    path: Path, node: str | None, prefix: str | None, recurrent_activation: str | None, precision: str | None = None
) -> Any:
    """Reads a layer with the converter that the file's name calls for."""
    from ..convert import from_keras, from_onnx
    from ..convert.torch.files import from_file

    kind = kind_of(path)
    if prefix is not None and kind != "torch":
        raise ValueError(f"{path}: --prefix is for PyTorch's files; name a layer by --node")
    if node is not None and kind == "torch":
        raise ValueError(f"{path}: --node is for ONNX and Keras; name a layer by --prefix")
    if recurrent_activation is not None and kind != "keras":
        raise ValueError(f"{path}: --recurrent-activation is for Keras's files")
    if kind == "onnx":
        return from_onnx(path, node, precision=precision)
    if kind == "keras":
        return from_keras(path, node, recurrent_activation=recurrent_activation, precision=precision)
    return from_file(path, prefix or "", precision)


def kind_of(path: Path) -> str:
    """Gives the kind of a model file by its name: "onnx", "torch" or "keras"."""
    kinds = {".onnx": "onnx", ".pt": "torch", ".pth": "torch", ".safetensors": "torch"}
    kinds |= {".h5": "keras", ".hdf5": "keras", ".keras": "keras"}
    try:
        return kinds[path.suffix.lower()]
    except KeyError:
        raise ValueError(f"{path}: expected a name that ends in one of {', '.join(kinds)}") from None
