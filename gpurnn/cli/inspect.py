"""`gpurnn inspect`: the recurrent layers in a model file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .console import naming, printable, say
from .parser import Commands, command

if TYPE_CHECKING:
    from rich.table import Table

    from ..convert import Found


def add(commands: Commands) -> None:
    parser = command(commands, run, "inspect", "print what a model file holds: its recurrent layers, their names and sizes")
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="gpurnn's or PyTorch's .safetensors, .onnx, .pt, .pth, .h5 or .keras"
    )


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from ..layers.files import is_layer

    console = Console(highlight=False, markup=False, emoji=False)
    if args.file.suffix == ".safetensors" and is_layer(args.file):
        title, table = _layer(args.file)
        say(title)
    else:
        with naming(args.file):
            found = listed(args.file)
        if not found:
            raise ValueError(f"{args.file}: no LSTM or GRU in it")
        table = _table(found)
    # names stay whole: they are what convert asks for
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, needed)
    console.print(table)


def listed(path: Path) -> "list[Found]":
    """Lists the recurrent layers of another framework's file."""
    from ..convert import list_onnx
    from ..convert.keras.files import list_keras
    from ..convert.torch.files import list_torch
    from .convert import kind_of

    return {"onnx": list_onnx, "keras": list_keras, "torch": list_torch}[kind_of(path)](path)


def _table(found: "list[Found]") -> "Table":
    from rich.table import Table

    table = Table("name", "kind", "inputs", "hidden", "layers", "directions", "remarks", box=None, pad_edge=False)
    for one in found:
        sizes = ("?" if size is None else str(size) for size in (one.input_size, one.hidden_size))
        cells = (one.name, one.kind, *sizes, str(one.num_layers), str(one.directions), one.note)
        table.add_row(*map(printable, cells))
    return table


def _layer(path: Path) -> "tuple[str, Table]":
    """Describes one of gpurnn's own files: its layer, and a table of its parameters."""
    from rich.table import Table

    import gpurnn

    from ..layers.files import tensors
    from ..layers.storage import DTYPE_NAMES, SCALES

    layer, held, dtypes = gpurnn.load(path), tensors(path), {kind: name for name, kind in DTYPE_NAMES.items()}
    table = Table("parameter", "shape", "dtype", box=None, pad_edge=False)
    for name in layer.params:
        for one in (name, name + SCALES):  # a quantised weight has scales besides
            if one in held:
                table.add_row(one, str(held[one].shape), dtypes[held[one].kind])
    return f"{layer!r}, {sum(array.size for array in layer.params.values()):,} parameters", table
