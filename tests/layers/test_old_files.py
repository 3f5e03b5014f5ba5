"""Layers that earlier versions wrote; `python tests/layers/test_old_files.py FOLDER` writes this version's for later ones."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Floats, assert_same_bits, leaves

import gpurnn

WRITTEN = Path(__file__).parents[1] / "written"  # a folder a version
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


def changed(layer: Any, path: Path, ending: str, arguments: dict[str, Any], gone: str | None = None) -> Path:
    """A pickle or a file of the layer, with other arguments in it and one less."""
    given = {name: value for name, value in (layer.configuration() | arguments).items() if name != gone}
    if ending == "pickle":
        with pytest.MonkeyPatch.context() as other:
            other.setattr(type(layer), "__getstate__", lambda self: {"configuration": given, "params": dict(self.params)})
            path.write_bytes(pickle.dumps(layer))
    else:
        from safetensors.numpy import save_file

        description = {"layer": type(layer).__name__, "arguments": given}
        metadata = {"gpurnn_format": "1", "gpurnn": json.dumps(description)}
        save_file({name: a.copy() for name, a in layer.params.items()}, path, metadata)
    return path


every_ending = pytest.mark.parametrize("ending", ["pickle", "safetensors"])


@every_ending
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_arguments_that_an_earlier_version_did_not_know_have_their_defaults(kind: str, ending: str, tmp_path: Path) -> None:
    layer = getattr(gpurnn, kind)(3, 4, seed=0)
    for gone in layer.configuration():
        path = changed(layer, tmp_path / f"layer.{ending}", ending, {}, gone)
        if gone in ("input_size", "hidden_size"):
            with pytest.raises(ValueError, match=f"missing {gone}"):
                read(path)
        else:
            assert repr(read(path)) == repr(layer)
            assert_same_bits(read(path).params, layer.params)


@every_ending
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_arguments_of_a_later_version_are_refused(kind: str, ending: str, tmp_path: Path) -> None:
    layer = getattr(gpurnn, kind)(3, 4)
    path = changed(layer, tmp_path / f"layer.{ending}", ending, {"layer_norm": False, "heads": 1})
    with pytest.raises(ValueError, match=r"no argument layer_norm, heads: a newer gpurnn wrote it"):
        read(path)


def write(folder: Path) -> None:
    for kind in KINDS:
        layer = made(kind)
        layer.save(folder / f"{kind}.safetensors")
        (folder / f"{kind}.pickle").write_bytes(pickle.dumps(layer, 4))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
