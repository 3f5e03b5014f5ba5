"""precision= of the converters, of gpurnn.load and of the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, leaves

import gpurnn
from gpurnn.cli import main

torch = pytest.importorskip("torch")
PRECISIONS = ["bf16", "int8", "tf32"]


def source(name: str, tmp_path: Path) -> Any:
    """Gives a converter with its source, so that options are left to be given."""
    if name == "torch":
        torch.manual_seed(0)
        module = torch.nn.GRU(3, 5, 2, bidirectional=True)
        return lambda **options: gpurnn.from_torch(module, **options)
    if name == "state":
        state = torch.nn.LSTM(3, 5).state_dict()
        return lambda **options: gpurnn.from_torch({"a." + key: one.numpy() for key, one in state.items()}, **options)
    if name == "onnx":
        pytest.importorskip("onnx")
        import onnx_models as om

        return lambda **options: gpurnn.from_onnx(om.simple("GRU", linear_before_reset=1), **options)
    pytest.importorskip("h5py")
    import keras_reference as ref

    path = ref.write(tmp_path / "m.h5", {"l": ref.named("l/l", ref.draw("LSTM", 3, 5))}, keras_version="2.4.0")
    return lambda **options: gpurnn.from_keras(path, **options)


SOURCES = ["torch", "state", "onnx", "keras"]


@pytest.mark.parametrize("name", SOURCES)
def test_converters(name: str, tmp_path: Path) -> None:
    convert = source(name, tmp_path)
    plain = convert()
    assert plain.precision is None
    for precision in PRECISIONS:
        layer = convert(precision=precision)
        assert layer.precision == precision
        assert_same_bits(layer.params, plain.params)
    assert convert(precision="float32").precision is None
    x = np.random.default_rng(0).standard_normal((4, 2, plain.input_size)).astype(np.float32)
    assert_same_bits(tuple(leaves(convert(precision="int8")(x))), tuple(leaves(plain.with_precision("int8")(x))))


@pytest.mark.parametrize("name", SOURCES)
def test_no_precision_at_all(name: str, tmp_path: Path) -> None:
    convert = source(name, tmp_path)
    with pytest.raises(ValueError, match="precision: expected None, 'tf32', 'bf16' or 'int8', got 'int4'"):
        convert(precision="int4")
    with pytest.raises(TypeError, match="precision: expected None or a string, got int"):
        convert(precision=8)


def test_float64_has_none() -> None:
    with pytest.raises(ValueError, match="precision 'bf16': expected dtype float32 with it, got float64"):
        gpurnn.from_torch(torch.nn.LSTM(2, 3).double(), precision="bf16")


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    layer = gpurnn.LSTM(3, 5, precision="tf32", seed=0)
    layer.save(path)
    assert gpurnn.load(path).precision == "tf32"
    for precision in PRECISIONS:
        assert gpurnn.load(path, precision=precision).precision == precision
        assert_same_bits(gpurnn.load(path, precision=precision).params, layer.params)
    assert gpurnn.load(path, precision="float32").precision is None
    with pytest.raises(ValueError, match="precision"):
        gpurnn.load(path, precision="int4")


@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.LSTM(3, 5).state_dict(), "m.pt")
    assert main(["convert", "m.pt", "m.safetensors", "--precision", "bf16"]) == 0
    assert "LSTM(3, 5, precision='bf16')" in capsys.readouterr().out
    assert main(["inspect", "m.safetensors"]) == 0
    assert "LSTM(3, 5, precision='bf16')" in capsys.readouterr().out
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    np.save("x.npy", x)
    run = ["run", "m.safetensors", "x.npy", "-o", "y.npy"]
    for options, precision in ([], "bf16"), (["--precision", "int8"], "int8"), (["--precision", "float32"], None):
        assert main([*run, *options]) == 0
        said = capsys.readouterr().out
        assert (f"precision {precision}" in said) if precision else ("precision" not in said)
        assert_same_bits(np.load("y.npy"), gpurnn.load("m.safetensors", precision=precision or "float32")(x)[0])
    with pytest.raises(SystemExit):
        main([*run, "--precision", "int4"])


def test_a_plan_tells() -> None:
    layer = gpurnn.from_torch(torch.nn.LSTM(3, 5), precision="int8")
    assert "precision='int8'" in str(layer.plan(np.zeros((4, 2, 3), np.float32)))
