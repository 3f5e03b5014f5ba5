"""`gpurnn run`: a saved layer over a file of sequences."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurnn_kernels.spec import REDUCED

from .console import say
from .parser import Commands, add_precision, at_least, check_output, command

if TYPE_CHECKING:
    import gpurnn

    from .npy import Array, Npy

    Layer = gpurnn.LSTM | gpurnn.GRU

BATCH_BYTES = 64 << 20  # input, output and states of the rows at a time take so much, unless --batch says how many


def add(commands: Commands) -> None:
    parser = command(commands, run, "run", "run a saved layer over the sequences of a .npy file")
    parser.add_argument("model", type=Path, metavar="MODEL.safetensors", help="what layer.save(path) wrote")
    parser.add_argument(
        "input", type=Path, metavar="INPUT.npy", help="(T, B, I), (B, T, I) if the layer is batch_first, or (T, I)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="OUTPUT.npy", required=True, help="the layer's outputs")
    parser.add_argument("--lengths", type=Path, metavar="LENGTHS.npy", help="integers (B,): valid steps of each row")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one")
    add_precision(parser, "of the layer's products (default: the layer's own)")
    parser.add_argument("--batch", type=at_least(1), metavar="N", help="rows at a time (default: 64 MiB of them)")


def run(args: argparse.Namespace) -> None:
    import gpurnn

    from .npy import new_npy, opened
    from .progress import progress

    check_output(args.output, args.model, args.input, args.lengths)
    layer = gpurnn.load(args.model, precision=args.precision)
    on_cpu = args.device == "auto" and layer.precision in REDUCED
    to_device, to_host = _transfers("cpu" if on_cpu else args.device)
    with opened(args.input) as x:
        _check(args.input, x, layer)
        unbatched = len(x.shape) == 2
        lengths = None if args.lengths is None else _lengths(args.lengths, x, layer)
        shape = (*x.shape[:-1], _widths(layer)[0])
        # an array without a batch axis is read whole: all steps of it
        axis = 0 if unbatched or layer.batch_first else 1
        rows = 0 if 0 in shape else x.shape[axis]
        batch = rows if unbatched else args.batch or _batch(x.shape[1 - axis], layer)
        begin = time.perf_counter()
        with new_npy(args.output, shape, x.dtype) as out, progress("rows", patience=1.0) as update:
            for first in range(0, rows, max(1, batch)):
                stretch = slice(first, min(first + batch, rows))
                valid = None if lengths is None else lengths[0] if unbatched else lengths[stretch]
                y, _ = layer(to_device(x.rows(axis, stretch)), lengths=valid)
                out.write(axis, stretch, to_host(y))
                update(stretch.stop, rows, "")
    with_precision = f", precision {layer.precision}" if layer.precision else ""
    say(f"{args.output}: {x.dtype.name} {shape}{with_precision}, in {time.perf_counter() - begin:.2f} s")


def _widths(layer: "Layer") -> tuple[int, int]:
    """Counts the numbers in one row of an output at one step, and of all states."""
    directions, outputs = 2 if layer.bidirectional else 1, getattr(layer, "proj_size", 0) or layer.hidden_size
    return directions * outputs, layer.num_layers * directions * (outputs + layer.hidden_size)


def _batch(steps: int, layer: "Layer") -> int:
    """Gives the number of rows that take `BATCH_BYTES`."""
    outputs, states = _widths(layer)
    row = steps * (layer.input_size + outputs) + 2 * states  # at the start and at the end
    return max(1, BATCH_BYTES // int(row * layer.dtype.itemsize))


def _transfers(device: str) -> tuple[Any, Any]:
    """Gives the functions that bring a batch to the device, and its outputs back."""
    from . import gpu

    missing = None if device == "cpu" else gpu.missing()
    if device == "cpu" or (device == "auto" and missing):
        return (lambda x: x), (lambda y: y)
    if missing:
        raise ValueError(f"--device cuda: {missing}")
    import cupy

    return cupy.asarray, cupy.asnumpy


def _check(path: Path, x: "Npy", layer: "Layer") -> None:
    if x.dtype != layer.dtype:
        raise TypeError(f"{path}: the model computes in {layer.dtype.name}, the array is {x.dtype}")
    if len(x.shape) not in (2, 3) or x.shape[-1] != layer.input_size:
        batched = "B, T" if layer.batch_first else "T, B"
        expected = f"({batched}, {layer.input_size}) or (T, {layer.input_size})"
        raise ValueError(f"{path}: the model takes {expected}, the array is {x.shape}")


def _lengths(path: Path, x: "Npy", layer: "Layer") -> "Array":
    """Reads lengths (B,) and checks them before any work is done."""
    from .. import checks
    from .npy import opened

    with opened(path) as file:
        found = file.whole()
    rows, steps = x.shape[:2] if layer.batch_first else x.shape[1::-1]
    if len(x.shape) == 2:
        rows, steps = 1, x.shape[0]
        found = found.reshape(1) if found.ndim == 0 else found
    try:
        return checks.lengths(found, rows, steps)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error
