"""`gpurnn run`: a saved layer over a file of sequences."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .parser import Commands, at_least_one, command

if TYPE_CHECKING:
    import numpy as np

    import gpurnn

    Array = np.ndarray[Any, np.dtype[Any]]
    Layer = gpurnn.LSTM | gpurnn.GRU

BATCH_BYTES = 64 << 20  # of input and output together, unless --batch says how many rows


def add(commands: Commands) -> None:
    parser = command(commands, run, "run", "run a saved layer over the sequences of a .npy file")
    parser.add_argument("model", type=Path, metavar="MODEL.safetensors", help="what layer.save(path) wrote")
    parser.add_argument(
        "input", type=Path, metavar="INPUT.npy", help="(T, B, I), (B, T, I) if the layer is batch_first, or (T, I)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="OUTPUT.npy", required=True, help="the layer's outputs")
    parser.add_argument("--lengths", type=Path, metavar="LENGTHS.npy", help="integers (B,): valid steps of each row")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one")
    parser.add_argument("--batch", type=at_least_one, metavar="N", help="rows at a time (default: 64 MiB of them)")


def run(args: argparse.Namespace) -> None:
    import numpy as np

    import gpurnn

    from .atomic import new_npy
    from .progress import progress

    to_device, to_host = _transfers(args.device)
    layer = gpurnn.load(args.model)
    x = _read(args.input, mmap=True)
    _check(args.input, x, layer)
    unbatched, rows_axis = x.ndim == 2, 0 if layer.batch_first else 1
    if unbatched:
        x = np.expand_dims(x, rows_axis)
    rows, steps = x.shape[rows_axis], x.shape[1 - rows_axis]
    lengths = None if args.lengths is None else _lengths(args.lengths, rows, steps, unbatched)

    width = (2 if layer.bidirectional else 1) * (getattr(layer, "proj_size", 0) or layer.hidden_size)
    shape = (steps, width) if unbatched else (*x.shape[:2], width)
    row_bytes = max(1, steps * (x.shape[2] + width) * x.itemsize)
    batch = args.batch or max(1, BATCH_BYTES // row_bytes)
    begin = time.perf_counter()
    with new_npy(args.output, shape, x.dtype) as out, progress("rows", patience=1.0) as update:
        for first in range(0, rows, batch):
            stretch = slice(first, min(first + batch, rows))
            index = (stretch,) if rows_axis == 0 else (slice(None), stretch)
            y, _ = layer(to_device(x[index]), lengths=None if lengths is None else lengths[stretch])
            if unbatched:
                out[...] = to_host(y).squeeze(rows_axis)
            else:
                out[index] = to_host(y)
            update(stretch.stop, rows, "")
    print(f"{args.output}: {x.dtype.name} {shape}, in {time.perf_counter() - begin:.2f} s")


def _transfers(device: str) -> tuple[Any, Any]:
    """How a batch gets to the device, and its outputs back."""
    from . import gpu

    missing = None if device == "cpu" else gpu.missing()
    if device == "cpu" or (device == "auto" and missing):
        return (lambda x: x), (lambda y: y)
    if missing:
        raise ValueError(f"--device cuda: {missing}")
    import cupy

    return cupy.asarray, cupy.asnumpy


def _read(path: Path, mmap: bool = False) -> "Array":
    import numpy as np

    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path}: not a .npy file")
    try:
        return np.asarray(np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False))
    except (EOFError, ValueError) as error:
        raise ValueError(f"{path}: not a readable .npy file: {error}") from error


def _check(path: Path, x: "Array", layer: "Layer") -> None:
    import numpy as np

    if x.dtype != np.dtype(layer.dtype):
        raise TypeError(f"{path}: the model computes in {np.dtype(layer.dtype).name}, the array is {x.dtype}")
    if x.ndim not in (2, 3) or x.shape[-1] != layer.input_size:
        batched = "B, T" if layer.batch_first else "T, B"
        expected = f"({batched}, {layer.input_size}) or (T, {layer.input_size})"
        raise ValueError(f"{path}: the model takes {expected}, the array is {x.shape}")


def _lengths(path: Path, rows: int, steps: int, unbatched: bool) -> "Array":
    """(B,) checked, before any work is done."""
    from gpurnn import checks

    found = _read(path)
    if unbatched and found.ndim == 0:
        found = found.reshape(1)
    try:
        return checks.lengths(found, rows, steps)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error
