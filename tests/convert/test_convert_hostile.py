"""Damaged and hostile files: a clear error within a second, nothing run, nothing large allocated."""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import refused

from gpurnn.convert import from_keras, from_onnx, list_onnx
from gpurnn.convert.keras.files import list_keras
from gpurnn.convert.torch.files import from_file, list_torch

TERA = 1 << 40
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:You are using `torch.load`")


def cut(path: Path, data: bytes, part: float) -> Path:
    path.write_bytes(data[: int(part * len(data))])
    return path


# ONNX


@pytest.fixture
def om() -> Any:
    pytest.importorskip("onnx")
    import onnx_models

    from_onnx(onnx_models.simple())  # what is imported and compiled once does not count
    return onnx_models


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_onnx(om: Any, tmp_path: Path, part: float) -> None:
    path = cut(tmp_path / "m.onnx", om.simple(H=64).SerializeToString(), part)
    refused(lambda: from_onnx(path), r"m\.onnx")
    refused(lambda: from_onnx(path), "damaged|holds|missing|no LSTM")


@pytest.mark.parametrize("data", [b"\0" * 100, b"\x0a\xff\xff\xff\xff\x0f", bytes(range(256)), b"\x80\x04cos\nsystem\n"])
def test_no_onnx_at_all(om: Any, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    refused(lambda: from_onnx(tmp_path / "m.onnx"), "damaged")


def test_onnx_that_claims_too_much(om: Any) -> None:
    model = om.replaced(om.simple(), om.huge("W"))
    refused(lambda: from_onnx(model), r"'W' claims the shape \(1, 1048576, 262144\) and holds 16 numbers")
    (found,) = list_onnx(model)
    assert found.input_size is None
    negative = om.huge("W")
    del negative.dims[:]
    negative.dims.extend([1, -1, 3])
    refused(lambda: from_onnx(om.replaced(om.simple(), negative)), "has the shape")


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"location": "../../etc/passwd"}, "outside of the model's folder"),
        ({"location": "/etc/passwd"}, "outside of the model's folder"),
        ({"location": "link"}, "outside of the model's folder"),
        ({"location": "nowhere"}, "missing"),
        ({"location": "small"}, "claims 192 bytes from 0 of 'small', which has 10"),
        ({"location": "small", "length": TERA}, "claims 192 bytes"),
        ({"location": "small", "offset": -5}, "claims 192 bytes from -5"),
        ({"location": "small", "offset": "x"}, "damaged place"),
        ({}, "missing"),
    ],
)
def test_onnx_weights_in_other_files(om: Any, tmp_path: Path, entries: dict[str, Any], match: str) -> None:
    import onnx

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "small").write_bytes(b"0123456789")
    (folder / "link").symlink_to("/etc/passwd")
    model = om.replaced(om.simple(), om.beside("W", (1, 16, 3), **entries))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    refused(lambda: from_onnx(folder / "m.onnx"), match)
    with pytest.raises(ValueError, match="hand over the model's path"):
        from_onnx(onnx.load_model_from_string(model.SerializeToString()))


def graph(om: Any, nodes: list[tuple[str, list[str], list[str]]], **tensors: Any) -> Any:
    """An LSTM whose W the nodes make."""
    from onnx import helper

    given = om.weights("LSTM", 3, 4)
    del given["W"]
    axis: dict[str, Any] = {"Concat": {"axis": 0}}
    made = [helper.make_node(kind, inputs, outputs, **axis.get(kind, {})) for kind, inputs, outputs in nodes]
    return om.model_of([*made, om.node_of("LSTM", {"X", "W", "R", "B"}, 4)], {**given, **tensors})


def test_onnx_graphs_without_an_end(om: Any) -> None:
    refused(lambda: from_onnx(graph(om, [])), "'W' is missing")
    refused(lambda: from_onnx(graph(om, [("Identity", ["V"], ["W"])])), "'V' is missing")
    refused(lambda: from_onnx(graph(om, [("Identity", ["W"], ["W"])])), "computed from itself")
    circle = [("Identity", ["V"], ["W"]), ("Identity", ["W"], ["V"])]
    refused(lambda: from_onnx(graph(om, circle)), "computed from itself")
    chain = [("Identity", [f"v{index + 1}"], [f"v{index}"]) for index in range(20_000)]
    chain.append(("Identity", ["v0"], ["W"]))
    refused(lambda: from_onnx(graph(om, chain)), "chain of more than")


def test_onnx_graphs_that_grow(om: Any) -> None:
    """Forty doublings would make a terabyte."""
    nodes = [("Concat", [f"v{index}", f"v{index}"], [f"v{index + 1}"]) for index in range(40)]
    nodes.append(("Identity", ["v40"], ["W"]))
    refused(lambda: from_onnx(graph(om, nodes, v0=np.ones((1, 3), np.float32))), "more is computed")


def test_onnx_nonsense_among_the_nodes(om: Any) -> None:
    one = np.ones((1, 16, 3), np.float32)
    refused(lambda: from_onnx(graph(om, [("Reshape", ["v", "s"], ["W"])], v=one, s=np.array([TERA, TERA]))), "Reshape cannot")
    refused(lambda: from_onnx(graph(om, [("Transpose", ["v", "v"], ["W"])], v=one)), "Transpose cannot")
    refused(lambda: from_onnx(graph(om, [("Expand", ["v", "s"], ["W"])], v=one, s=np.array([TERA]))), "computed by Expand")
    refused(lambda: from_onnx(graph(om, [("Identity", [], ["W"])])), "Identity cannot")


def test_onnx_integers(om: Any) -> None:
    """DequantizeLinear of what is not there, of itself, of scales that would spread it, and over and over."""
    q, one = np.ones((1, 16, 3), np.int8), np.float32(0.1).reshape(())
    made = ("DequantizeLinear", ["q", "s"], ["W"])
    refused(lambda: from_onnx(graph(om, [made], q=q)), "'s' is missing")
    refused(lambda: from_onnx(graph(om, [("DequantizeLinear", ["W", "s"], ["W"])], s=one)), "computed from itself")
    refused(lambda: from_onnx(graph(om, [("DequantizeLinear", ["q"], ["W"])], q=q)), "DequantizeLinear with 1 inputs")
    refused(lambda: from_onnx(graph(om, [("DequantizeLinear", ["q", "s", "s", "s"], ["W"])], q=q, s=one)), "with 4 inputs")
    thin, wide = np.ones((1, 1, 2**18), np.int8), np.ones(2**20, np.float32)
    refused(lambda: from_onnx(graph(om, [made], q=thin, s=wide)), "scale: expected one for all, or one for each of axis 1")
    model = graph(om, [made], q=q, s=one)
    huge = om.huge("q")
    huge.data_type = 3  # int8
    refused(lambda: from_onnx(om.replaced(model, huge)), "claims the shape")
    many = [("DequantizeLinear", ["q", "s"], [f"v{index}"]) for index in range(400)]
    joined = ("Concat", [f"v{index}" for index in range(400)], ["W"])
    refused(lambda: from_onnx(graph(om, [*many, joined], q=np.ones((1, 64, 3000), np.int8), s=one)), "more is computed")


# HDF5


@pytest.fixture
def ref() -> Any:
    pytest.importorskip("h5py")
    import keras_reference

    return keras_reference


def legacy(ref: Any, path: Path, **changed: Any) -> Path:
    weights = ref.named("l/lstm_cell", ref.draw("LSTM", 16, 32))
    return Path(ref.write(path, {"l": weights | changed}, keras_version="2.6.0"))


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.9])
@pytest.mark.parametrize("new", [False, True])
def test_truncated_hdf5(ref: Any, tmp_path: Path, part: float, new: bool) -> None:
    import h5py

    path = legacy(ref, tmp_path / "w.h5")
    if new:
        with h5py.File(path, "w") as file:
            for index, array in enumerate(ref.draw("LSTM", 16, 32)):
                file[f"layers/lstm/cell/vars/{index}"] = array
    from_keras(path)
    cut(path, path.read_bytes(), part)
    refused(lambda: from_keras(path), r"w\.h5: .*(damaged|not an HDF5)")
    refused(lambda: list_keras(path), "damaged|not an HDF5")


def test_hdf5_by_somebody_else(ref: Any, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["x"] = np.ones(3)
    refused(lambda: from_keras(tmp_path / "w.h5"), "none that Keras wrote")
    refused(lambda: from_keras(tmp_path), "got a folder")
    refused(lambda: from_keras(tmp_path / "nowhere.h5"), "no such file", FileNotFoundError)


@pytest.mark.parametrize("chunks", [None, (1024, 1024)])
def test_hdf5_that_claims_too_much(ref: Any, tmp_path: Path, chunks: Any) -> None:
    """Datasets nobody wrote take no room in the file, and read as terabytes of zeros."""
    import h5py

    path = legacy(ref, tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        group = file["l/l/lstm_cell"]
        for leaf, shape in (("kernel:0", (TERA >> 24, TERA >> 20)), ("recurrent_kernel:0", (TERA >> 22, TERA >> 20))):
            del group[leaf]
            group.create_dataset(leaf, shape, "f4", chunks=chunks)
        del group["bias:0"]
        group.create_dataset("bias:0", (TERA >> 20,), "f4")
    refused(lambda: from_keras(path), "claims .* bytes, the file holds 0")


def test_hdf5_that_packs_too_much(ref: Any, tmp_path: Path) -> None:
    import h5py

    path = legacy(ref, tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        group = file["l/l/lstm_cell"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", data=np.zeros((100_000, 128), np.float32), compression="gzip")
    refused(lambda: from_keras(path), "claims 51200000 bytes")


def test_hdf5_links_are_not_followed(ref: Any, tmp_path: Path) -> None:
    import h5py

    other = legacy(ref, tmp_path / "other.h5")
    for link in (h5py.ExternalLink(str(other), "/l/l/lstm_cell/kernel:0"), h5py.SoftLink("/l/l/lstm_cell/bias:0")):
        path = legacy(ref, tmp_path / "w.h5")
        with h5py.File(path, "a") as file:
            del file["l/l/lstm_cell/kernel:0"]
            file["l/l/lstm_cell/kernel:0"] = link
        refused(lambda path=path: from_keras(path), "is a link")  # type: ignore[misc]


def test_hdf5_numbers_in_other_files(ref: Any, tmp_path: Path) -> None:
    import h5py

    other = tmp_path / "secret"
    other.write_bytes(bytes(16 * 128 * 4))
    path = legacy(ref, tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        group = file["l/l/lstm_cell"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", (16, 128), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])
    refused(lambda: from_keras(path), "lie in other files")
    layout = h5py.VirtualLayout((16, 128), "f4")
    layout[:] = h5py.VirtualSource(str(legacy(ref, tmp_path / "o.h5")), "l/l/lstm_cell/kernel:0", (16, 128), "f4")
    path = legacy(ref, tmp_path / "v.h5")
    with h5py.File(path, "a") as file:
        del file["l/l/lstm_cell/kernel:0"]
        file["l/l/lstm_cell"].create_virtual_dataset("kernel:0", layout)
    refused(lambda: from_keras(path), "lie in other files")


def test_hdf5_with_a_circle(ref: Any, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_group("layers/lstm/cell")
        file["layers/lstm/cell/vars"] = file["layers"]
    refused(lambda: from_keras(tmp_path / "w.h5"), "no LSTM or GRU")


@pytest.mark.parametrize("model", ["{", "[" * 100_000, "3", '{"config": {"layers": [[], 3, {"config": 4}]}}'])
def test_models_that_are_none(ref: Any, tmp_path: Path, model: str) -> None:
    path = ref.write(tmp_path / "m.h5", {}, inside="model_weights")
    weights = ref.named("l/lstm_cell", ref.draw("LSTM", 4, 6))
    try:
        path = ref.write(tmp_path / "m.h5", {"l": weights}, inside="model_weights", model_config=model, keras_version="2.1")
    except (OSError, ValueError, RuntimeError):
        pytest.skip("too long for an attribute")
    refused(lambda: from_keras(path), "damaged|hard_sigmoid")


def archive(path: Path, model: bytes, weights: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("config.json", model)
        file.writestr("model.weights.h5", weights)
    return path


def test_archives(ref: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    packed = archive(path, b"{}", bytes(100 << 20), zipfile.ZIP_DEFLATED).read_bytes()
    refused(lambda: from_keras(path), "claims 104857600 bytes")
    cut(path, packed, 0.5)
    refused(lambda: from_keras(path), "not an HDF5 file, or damaged")
    refused(lambda: from_keras(archive(path, b"{}", b"nothing")), "not an HDF5 file")
    refused(lambda: from_keras(archive(path, b"\xff\xfe", b"nothing")), "damaged")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("other", b"")
    refused(lambda: from_keras(path), r"no model\.weights\.h5")


# PyTorch


class Code:
    """A pickle of it would run something."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def saved(torch: Any, path: Path, **changed: Any) -> Path:
    torch.save(dict(torch.nn.LSTM(3, 64).state_dict()) | changed, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path) as file:
        members = [(one.filename, change(one.filename, file.read(one))) for one in file.infolist()]
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def test_pickles_with_code_are_not_run(torch: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = saved(torch, tmp_path / "m.pt", more=Code(mark))
    refused(lambda: from_file(path), "pickled objects .*not tensors alone")
    refused(lambda: list_torch(path), "nothing of them was run")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Code(mark)))
    refused(lambda: from_file(tmp_path / "plain.pt"), "not a file of torch.save")
    torch.save({"weight_ih_l0": Code(mark)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(lambda: from_file(tmp_path / "old.pt"), r"before PyTorch 1\.6")
    torch.save(torch.nn.LSTM(3, 4), tmp_path / "whole.pt")
    refused(lambda: from_file(tmp_path / "whole.pt"), r"LSTM\), not tensors alone.*state_dict")
    assert not mark.exists()


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99])
def test_truncated_torch_files(torch: Any, tmp_path: Path, part: float) -> None:
    path = saved(torch, tmp_path / "m.pt")
    from_file(path)
    refused(lambda: from_file(cut(path, path.read_bytes(), part)), "damaged")


def test_torch_files_that_claim_too_much(torch: Any, tmp_path: Path) -> None:
    path = rewritten(saved(torch, tmp_path / "short.pt"), lambda name, data: data[:8] if "/data/" in name else data)
    refused(lambda: from_file(path), "damaged: record size")
    packed = rewritten(saved(torch, tmp_path / "packed.pt"), lambda _, data: data, zipfile.ZIP_DEFLATED)
    refused(lambda: from_file(packed), "none that torch.save wrote")
    wide = torch.zeros(1).expand(TERA >> 20, TERA >> 20)
    refused(lambda: from_file(saved(torch, tmp_path / "wide.pt", weight_ih_l0=wide)), "no LSTM or GRU")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch means to remove them
        quantised = torch.quantize_per_tensor(torch.zeros(1), 0.1, 0, torch.qint8).expand(TERA >> 20, TERA >> 20)
    refused(lambda: from_file(saved(torch, tmp_path / "quantised.pt", weight_ih_l0=quantised)), "no LSTM or GRU|damaged")
    numbers = struct.pack("<I", 256 * 3)[:2]

    def huge(name: str, data: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return data
        changed = data.replace(b"M" + numbers + b"t", b"\x8a\x06\x00\x00\x00\x00\x00\x01t")
        assert changed != data
        return changed

    refused(lambda: from_file(rewritten(saved(torch, tmp_path / "huge.pt"), huge)), "damaged")


def test_other_things_in_torch_files(torch: Any, tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "m.pt")
    refused(lambda: from_file(tmp_path / "m.pt"), "expected a state dict, got list")
    deep: dict[str, Any] = {}
    at = deep
    for _ in range(50):
        at["d"] = {}
        at = at["d"]
    torch.save(deep, tmp_path / "m.pt")
    refused(lambda: from_file(tmp_path / "m.pt"), "no LSTM or GRU")
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
        file.writestr("readme", "")
    refused(lambda: from_file(tmp_path / "m.pt"), "damaged")
    refused(lambda: from_file(tmp_path / "none.pt"), "no such file", FileNotFoundError)


def test_checkpoints(torch: Any, tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"one": torch.nn.LSTM(2, 3), "two": torch.nn.GRU(3, 4)})
    torch.save({"epoch": 3, "model": model.state_dict(), "optimizer": {"state": {}}}, tmp_path / "m.pth")
    assert [one.name for one in list_torch(tmp_path / "m.pth")] == ["model.one.", "model.two."]
    assert from_file(tmp_path / "m.pth", "model.two").hidden_size == 4
    with pytest.raises(ValueError, match=r"m\.pth: 2 recurrent layers"):
        from_file(tmp_path / "m.pth")
