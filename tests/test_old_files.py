"""Layers that earlier versions wrote: `python tests/test_old_files.py FOLDER` writes this version's, for later ones to read."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Floats, assert_same_bits, leaves

import gpurnn

WRITTEN = Path(__file__).parent / "written"  # a folder a version
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {"num_layers": 2, "bidirectional": True, "forget_bias": 1.5, "precision": "tf32", "fast_math": True}),
    "lstm_options": ("LSTM", {"proj_size": 2, "peepholes": True, "clip": 3.0, "reverse": True, "dtype": "float64"}),
    "lstm_coupled": ("LSTM", {"input_forget": True, "batch_first": True}),
    "gru": ("GRU", {"bidirectional": True}),
    "gru_after": ("GRU", {"reset_after": True, "num_layers": 2}),
    "gru_options": ("GRU", {"bias": False, "clip": 3.0, "reverse": True, "batch_first": True, "dtype": "float64"}),
    "gru_half": ("GRU", {"reset_after": True, "dtype": "float16"}),
}


def made(kind: str) -> Any:
    """A layer of this version whose parameters are a ramp each."""
    name, options = KINDS[kind]
    layer = getattr(gpurnn, name)(3, 4, **options)
    layer.load_params({name: ramp(a.shape, layer.dtype) for name, a in layer.params.items()})
    return layer


def ramp(shape: tuple[int, ...], dtype: Any) -> Floats:
    return np.linspace(-0.5, 0.5, int(np.prod(shape))).reshape(shape).astype(dtype)


def read(path: Path) -> Any:
    return pickle.loads(path.read_bytes()) if path.suffix == ".pickle" else gpurnn.load(path)


@pytest.mark.parametrize("path", sorted(WRITTEN.glob("*/*")), ids=lambda path: "-".join(path.parts[-2:]))
def test_layers_of_earlier_versions_are_read(path: Path) -> None:
    found, expected = read(path), made(path.stem)
    assert type(found) is type(expected)
    assert found.configuration() == expected.configuration()
    assert repr(found) == repr(expected)
    assert_same_bits(found.params, expected.params)
    if found.dtype != np.float16:
        x = ramp((5, 3, 3), found.dtype)
        assert_same_bits(tuple(leaves(found(x))), tuple(leaves(expected(x))))


@pytest.mark.parametrize("ending", ["pickle", "safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_kept(kind: str, ending: str) -> None:
    assert list(WRITTEN.glob(f"*/{kind}.{ending}"))


def write(folder: Path) -> None:
    for kind in KINDS:
        layer = made(kind)
        layer.save(folder / f"{kind}.safetensors")
        (folder / f"{kind}.pickle").write_bytes(pickle.dumps(layer, 4))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
