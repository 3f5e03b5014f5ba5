"""Cases that tests of the command line share: layers and inputs in files, and what a command that fails says."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpurnn
from gpurnn.cli import main

PROGRAM = [sys.executable, "-m", "gpurnn"]
T, B, I, H = 9, 11, 5, 7
LAYERS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: gpurnn.LSTM(I, H, seed=1),
    "lstm-bidirectional-stacked": lambda: gpurnn.LSTM(I, H, 2, bidirectional=True, seed=1),
    "lstm-float64": lambda: gpurnn.LSTM(I, H, dtype="float64", seed=1),
    "gru-batch-first": lambda: gpurnn.GRU(I, H, batch_first=True, seed=1),
    "gru-reset-after-reverse": lambda: gpurnn.GRU(I, H, reset_after=True, reverse=True, seed=1),
}


def files() -> set[str]:
    return {path.name for path in Path.cwd().iterdir()}


def case(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """A layer, an input of its layout and lengths, also as the files m.safetensors, x.npy and n.npy."""
    rng, layer = np.random.default_rng(0), LAYERS[name]()
    shape = (B, T, I) if layer.batch_first else (T, B, I)
    x = rng.standard_normal(shape).astype(layer.dtype)
    lengths = rng.integers(0, T + 1, B)
    layer.save("m.safetensors")
    np.save("x.npy", x)
    np.save("n.npy", lengths)
    return layer, x, lengths


def error_of(argv: list[str], capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """The one line that a failing command says."""
    try:
        found = main(argv)
    except SystemExit as leave:  # argparse's
        found = leave.code
    out, err = capsys.readouterr()
    assert (found, out) == (status, ""), err
    assert err.startswith("gpurnn: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err
