"""gpurnn convert and gpurnn inspect."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpurnn
from gpurnn.cli import convert, inspect
from gpurnn.cli.parser import Parser


def run(*arguments: Any) -> None:
    """A command line of these two subcommands."""
    parser = Parser("gpurnn")
    commands = parser.add_subparsers(required=True, parser_class=Parser)
    for command in (convert, inspect):
        command.add(commands)
    args = parser.parse_args([str(one) for one in arguments])
    args.run(args)


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    import onnx_models as om

    tensors = {**om.weights("GRU", 3, 4), **{f"{key}2": value for key, value in om.weights("LSTM", 3, 5).items()}}
    second = onnx.helper.make_node("LSTM", ["X", "W2", "R2", "B2"], ["Z"], name="second", hidden_size=5)
    onnx.save(om.model_of([om.node_of("GRU", {"X", "W", "R", "B"}, 4, "first"), second], tensors), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def torch_file(tmp_path: Path) -> Path:
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"enc": torch.nn.LSTM(3, 5, 2, bidirectional=True), "dec": torch.nn.GRUCell(3, 4)})
    torch.save({"model": model.state_dict()}, tmp_path / "m.pt")
    return tmp_path / "m.pt"


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    pytest.importorskip("h5py")
    import keras_reference as ref

    weights = ref.named("l/l", ref.draw("LSTM", 3, 5))
    return Path(ref.write(tmp_path / "m.h5", {"l": weights}, keras_version="2.2.4"))


def test_convert_onnx(onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    run("convert", onnx_file, out, "--node", "second")
    assert gpurnn.load(out).hidden_size == 5
    assert "out.safetensors: LSTM(3, 5), 180 parameters" in capsys.readouterr().out
    with pytest.raises(ValueError, match="2 recurrent layers; choose one by node="):
        run("convert", onnx_file, out)
    with pytest.raises(ValueError, match="--prefix is for PyTorch"):
        run("convert", onnx_file, out, "--prefix", "x")


def test_convert_torch(torch_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    run("convert", torch_file, out, "--prefix", "model.enc")
    layer = gpurnn.load(out)
    assert (layer.num_layers, layer.bidirectional) == (2, True)
    with pytest.raises(ValueError, match="--node is for ONNX and Keras"):
        run("convert", torch_file, out, "--node", "x")


def test_convert_keras(keras_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match="hard_sigmoid"):
        run("convert", keras_file, out)
    assert not out.exists()
    run("convert", keras_file, out, "--recurrent-activation", "sigmoid", "--node", "l")
    assert gpurnn.load(out).batch_first


def test_a_converted_file_runs(torch_file: Path, tmp_path: Path) -> None:
    from gpurnn.cli import main

    run("convert", torch_file, tmp_path / "g.safetensors", "--prefix", "model.dec.")
    np.save(tmp_path / "x.npy", np.ones((4, 2, 3), np.float32))
    assert main(["run", str(tmp_path / "g.safetensors"), str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")]) == 0
    assert np.load(tmp_path / "y.npy").shape == (4, 2, 4)


def test_inspect(
    onnx_file: Path, torch_file: Path, keras_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines(path: Path) -> list[list[str]]:
        run("inspect", path)
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    header = ["name", "kind", "inputs", "hidden", "layers", "directions", "remarks"]
    assert lines(onnx_file) == [
        header,
        ["first", "GRU", "3", "4", "1", "1", "linear_before_reset=0"],
        ["second", "LSTM", "3", "5", "1", "1"],
    ]
    assert lines(torch_file)[1:] == [["model.enc.", "LSTM", "3", "5", "2", "2"], ["model.dec.", "GRUCell", "3", "4", "1", "1"]]
    assert lines(keras_file)[1:] == [["l", "LSTM", "3", "5", "1", "1"]]
    gpurnn.GRU(3, 4, reset_after=True).save(tmp_path / "g.safetensors")
    assert lines(tmp_path / "g.safetensors") == [
        ["GRU(3,", "4,", "reset_after=True),", "100", "parameters"],
        ["parameter", "shape", "dtype"],
        *(["layers.0." + name, *size, "float32"] for name, size in (("W_x", ["(12,", "3)"]), ("W_h", ["(12,", "4)"]))),
        *(["layers.0." + name, size, "float32"] for name, size in (("b", "(12,)"), ("b_hn", "(4,)"))),
    ]


def test_quantised_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Integers are listed, converted as they are, and listed again."""
    onnx = pytest.importorskip("onnx")
    import onnx_models as om

    weights = om.weights("GRU", 3, 4, letters="R") | {"q": np.ones((1, 12, 3), np.uint8), "s": np.float32(0.1).reshape(())}
    weights["z"] = np.array(128, np.uint8)
    nodes = [onnx.helper.make_node("DequantizeLinear", [one, "s", "z"], [to]) for one, to in (("q", "W"), ("r", "R"))]
    weights["r"] = np.ones((1, 12, 4), np.uint8)
    del weights["R"]
    node = om.node_of("GRU", {"X", "W", "R"}, 4, linear_before_reset=1)
    onnx.save(om.model_of([*nodes, node], weights), tmp_path / "m.onnx")
    run("inspect", tmp_path / "m.onnx")
    assert capsys.readouterr().out.splitlines()[1].endswith("linear_before_reset=1, uint8 weights")
    run("convert", tmp_path / "m.onnx", tmp_path / "m.safetensors")
    assert "precision='int8'" in capsys.readouterr().out
    run("inspect", tmp_path / "m.safetensors")
    assert [line.split() for line in capsys.readouterr().out.splitlines()][2:] == [
        ["layers.0.W_x", "(12,", "3)", "int8"],
        ["layers.0.W_x.scales", "(12,)", "float32"],
        ["layers.0.W_h", "(12,", "4)", "int8"],
        ["layers.0.W_h.scales", "(12,)", "float32"],
    ]
    run("convert", tmp_path / "m.onnx", tmp_path / "b.safetensors", "--precision", "bf16")
    capsys.readouterr()
    run("inspect", tmp_path / "b.safetensors")
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()][2:] == ["bfloat16", "bfloat16"]


def test_safetensors_of_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights of a model under PyTorch's names, as they are published; PyTorch is not needed."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    sizes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_ih_l0": (16,), "bias_hh_l0": (16,)}
    state = {f"enc.lstm.{name}": rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    save_file({**state, "head.weight": np.ones((2, 4), np.float32)}, tmp_path / "m.safetensors")
    run("inspect", tmp_path / "m.safetensors")
    assert capsys.readouterr().out.splitlines()[1].split() == ["enc.lstm.", "LSTM", "3", "4", "1", "1"]
    run("convert", tmp_path / "m.safetensors", tmp_path / "out.safetensors")
    converted, expected = gpurnn.load(tmp_path / "out.safetensors"), gpurnn.from_torch(state)
    assert all(np.array_equal(converted.params[name], array) for name, array in expected.params.items())
    (tmp_path / "m.safetensors").write_bytes(b"\xff" * 16)
    with pytest.raises(ValueError, match="not a safetensors file, or damaged"):
        run("convert", tmp_path / "m.safetensors", tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_inspect_keeps_names_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    place = "a.very.long.way.down." * 10
    torch.save({place + name: value for name, value in torch.nn.GRU(3, 4).state_dict().items()}, tmp_path / "m.pt")
    run("inspect", tmp_path / "m.pt")
    assert place in capsys.readouterr().out


@pytest.mark.parametrize("command", [["convert", "m.what", "out.safetensors"], ["inspect", "m.what"]])
def test_other_names(command: list[str]) -> None:
    with pytest.raises(ValueError, match=r"ends in one of \.onnx, \.pt"):
        run(*command)


def test_the_model_is_not_overwritten(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    model, link = tmp_path / "m.safetensors", tmp_path / "l.safetensors"
    save_file({"weight_ih_l0": np.ones((9, 2), np.float32), "weight_hh_l0": np.ones((9, 3), np.float32)}, model)
    link.symlink_to(model)
    before = model.read_bytes()
    for output in (model, link):
        with pytest.raises(ValueError, match="the output would take the place of"):
            run("convert", model, output)
    assert model.read_bytes() == before


@pytest.mark.parametrize("command", [["convert", "m.pt", "out.safetensors"], ["inspect", "m.pt"]])
def test_errors_name_the_file(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of a converter that does not know of it name it, too."""
    from gpurnn.convert.torch import files as torch_files

    def fails(*_: Any) -> None:
        raise NotImplementedError("such\na layer")

    monkeypatch.setattr(torch_files, "from_file", fails)
    monkeypatch.setattr(torch_files, "list_torch", fails)
    with pytest.raises(ValueError, match=r"^m\.pt: such a layer$"):
        run(*command)


def test_other_outputs() -> None:
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        run("convert", "m.onnx", "out.npz")
    with pytest.raises(FileNotFoundError):
        run("convert", "m.onnx", "out.safetensors")
    with pytest.raises(FileNotFoundError):
        run("inspect", "m.onnx")
