"""Small files that ask for much: each is refused by a bound, before anything large is made of it."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import refused

from gpurnn.convert import from_keras, from_onnx, list_onnx
from gpurnn.convert.keras.files import list_keras
from gpurnn.convert.torch.files import from_file, list_torch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:You are using `torch.load`")

# PyTorch


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def test_dicts_shared_by_dicts(torch: Any, tmp_path: Path) -> None:
    """Eight levels of twenty references each to one dict: 20**8 places."""
    shared: dict[str, Any] = {"epoch": 1}
    for _ in range(8):
        shared = {f"k{index}": shared for index in range(20)}
    torch.save(shared | {"model": torch.nn.GRU(3, 4).state_dict()}, tmp_path / "m.pt")
    assert (tmp_path / "m.pt").stat().st_size < 10_000
    refused(lambda: list_torch(tmp_path / "m.pt"), r"m\.pt: its dicts stand in each other at more than 100000 places")
    refused(lambda: from_file(tmp_path / "m.pt", "model"), "more than 100000 places")


def test_a_state_dict_under_two_names(torch: Any, tmp_path: Path) -> None:
    """Checkpoints have it so: the last and the best are one."""
    state = torch.nn.GRU(3, 4).state_dict()
    torch.save({"last": state, "best": state}, tmp_path / "m.pt")
    assert {one.name for one in list_torch(tmp_path / "m.pt")} == {"last.", "best."}
    assert from_file(tmp_path / "m.pt", "best").hidden_size == 4


def test_dicts_with_long_names(torch: Any, tmp_path: Path) -> None:
    """One name of a megabyte, in each of many dicts; names of layers are short."""
    name = "k" * (1 << 20)
    inner = {str(index): {name: {"weight_ih_l0": torch.ones(1)}} for index in range(1000)}
    torch.save({"a": inner, **torch.nn.GRU(3, 4).state_dict()}, tmp_path / "m.pt")
    (found,) = list_torch(tmp_path / "m.pt")
    assert found.name == ""


def test_layers_that_share_all_their_weights(torch: Any, tmp_path: Path) -> None:
    state = torch.nn.LSTM(64, 64).state_dict()
    many = {name.replace("l0", f"l{layer}"): value for layer in range(200) for name, value in state.items()}
    torch.save(many, tmp_path / "m.pt")
    refused(lambda: from_file(tmp_path / "m.pt"), r"m\.pt: its recurrent layers claim 26624000 bytes")


# Keras


@pytest.fixture
def ref() -> Any:
    pytest.importorskip("h5py")
    import keras_reference

    return keras_reference


def changed(ref: Any, path: Path, change: Any) -> Path:
    """A weight file of Keras 2 after a change of the open file."""
    import h5py

    ref.write(path, {"l": ref.named("l/lstm_cell", ref.draw("LSTM", 16, 32))}, keras_version="2.6.0")
    with h5py.File(path, "a") as file:
        change(file)
    return path


def one_text(path: Path) -> None:
    """All the marked texts of a file are made one: "aaa" is long, and the references of "b0", "b1", ... lead to it as well."""
    data = bytearray(path.read_bytes())
    long = data.index(b"a" * 1000)
    heap = data.rindex(b"GCOL", 0, long)
    number = int.from_bytes(data[long - 16 : long - 14], "little")
    to = (1 << 20).to_bytes(4, "little") + heap.to_bytes(8, "little") + number.to_bytes(4, "little")
    first = data.index(to)  # the first reference of the array
    for at in range(first, first + 4000 * 16, 16):
        data[at : at + 16] = to
    path.write_bytes(data)


def test_many_texts_at_one_place(ref: Any, tmp_path: Path) -> None:
    """4,000 names are one text of a megabyte: 4 GB."""
    import h5py

    def change(file: Any) -> None:
        del file.attrs["layer_names"]
        names = ["a" * (1 << 20), *(f"b{index}" for index in range(3999))]
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype("ascii"))

    path = changed(ref, tmp_path / "w.h5", change)
    one_text(path)
    assert path.stat().st_size < 2 << 20
    refused(lambda: list_keras(path), r"w\.h5: the attribute 'layer_names' may claim \d+ bytes of text, in a file of")
    refused(lambda: from_keras(path), "may claim")


def test_many_names(ref: Any, tmp_path: Path) -> None:
    """Texts of one fixed length may be as many as the file has bytes; objects are counted."""

    def change(file: Any) -> None:
        for index in range(3):
            file.attrs[f"layer_names{index}"] = np.full(60_000, b"l")
        del file.attrs["layer_names"]

    refused(lambda: list_keras(changed(ref, tmp_path / "w.h5", change)), "more than 100000 objects and names")


def test_files_of_keras_3_keep_working(ref: Any, tmp_path: Path) -> None:
    """It writes lists of names as references, and a model's long text stands in the same file."""
    import h5py

    weights = {f"l{index}": ref.named(f"l{index}/cell", ref.draw("LSTM", 4, 8)) for index in range(40)}
    path = ref.write(tmp_path / "m.h5", weights, keras_version="3.5.0")
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs.create("layer_names", list(weights), dtype=h5py.string_dtype())
        layers = [{"class_name": "LSTM", "config": {"name": name}} for name in weights]
        layers.append({"class_name": "TextVectorization", "config": {"name": "t", "vocabulary": ["word" * 4] * 100_000}})
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
    assert len(list_keras(path)) == 40
    assert from_keras(path, "l7").hidden_size == 8


def bomb(file: Any, chunk: bytes) -> None:
    """The kernel's one chunk is what is given; its size is what the dataset claims."""
    cell = file["l/l/lstm_cell"]
    del cell["kernel:0"]
    dataset = cell.create_dataset("kernel:0", (16, 128), "f4", chunks=(16, 128), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), chunk)


def test_chunks_that_unpack_to_more(ref: Any, tmp_path: Path) -> None:
    """HDF5 unpacks a chunk to its end, whatever it claims."""
    packed = zlib.compress(bytes(1 << 26), 1)
    path = changed(ref, tmp_path / "w.h5", lambda file: bomb(file, packed))
    assert path.stat().st_size < 1 << 20
    refused(lambda: from_keras(path), r"kernel:0: a chunk unpacks to more than its 8192 bytes")
    path = changed(ref, tmp_path / "w.h5", lambda file: bomb(file, bytes(range(256)) * 4))
    refused(lambda: from_keras(path), r"w\.h5.*a damaged chunk")
    kernel = ref.draw("LSTM", 16, 32, seed=5)[0]
    path = changed(ref, tmp_path / "w.h5", lambda file: bomb(file, zlib.compress(kernel.tobytes())))
    assert np.array_equal(from_keras(path).params["layers.0.W_x"][:32], kernel.T[32:64])


def test_filters(ref: Any, tmp_path: Path) -> None:
    """Packed weights are read; filters that believe a size in the file are not."""

    def packed(file: Any, **options: Any) -> None:
        cell = file["l/l/lstm_cell"]
        kernel = cell["kernel:0"][()]
        del cell["kernel:0"]
        cell.create_dataset("kernel:0", data=kernel, chunks=(5, 50), **options)

    plain = from_keras(changed(ref, tmp_path / "w.h5", lambda file: None)).params
    for options in (
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
    ):
        path = changed(ref, tmp_path / "w.h5", lambda file, options=options: packed(file, **options))
        assert np.array_equal(from_keras(path).params["layers.0.W_x"], plain["layers.0.W_x"])
    path = changed(ref, tmp_path / "w.h5", lambda file: packed(file, scaleoffset=2))
    refused(lambda: from_keras(path), "packed by filters")


def test_datasets_under_many_names(ref: Any, tmp_path: Path) -> None:
    """The gates of Keras 1, each of them the same bytes, far beyond the file."""
    import h5py

    units = 500
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = 1
        group = file.create_group("layer_0")
        group.attrs["nb_params"] = 12
        coarse = np.random.default_rng(0).integers(0, 256, (units, units)) / np.float32(256)
        group.create_dataset("param_0", data=coarse.astype("f4"), chunks=(100, 100), compression="gzip")
        group["param_2"] = np.zeros(units, np.float32)
        for index in range(12):
            if f"param_{index}" not in group:
                group[f"param_{index}"] = group["param_2" if index % 3 == 2 else "param_0"]
    refused(
        lambda: from_keras(path, recurrent_activation="sigmoid"),
        r"w\.h5: .*more than 16 times the file's \d+ bytes are claimed",
    )


@pytest.mark.parametrize("link", ["external", "passwd", "soft"])
def test_links_to_the_weights(ref: Any, tmp_path: Path, link: str) -> None:
    """A group model_weights that lies elsewhere: in another file of weights, in one that is none, in this one."""
    import h5py

    other = changed(ref, tmp_path / "other.h5", lambda file: None)
    links = {"external": h5py.ExternalLink(str(other), "/"), "passwd": h5py.ExternalLink("/etc/passwd", "/")}
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["model_weights"] = links.get(link, h5py.SoftLink("/elsewhere"))
        file["elsewhere"] = file.create_group("made")
    refused(lambda: from_keras(tmp_path / "m.h5"), r"m\.h5: 'model_weights' is a link")
    refused(lambda: list_keras(tmp_path / "m.h5"), "is a link")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["model_weights"] = np.ones(3)
    refused(lambda: from_keras(tmp_path / "m.h5"), r"m\.h5: .*no group")


def test_links_inside_an_archive(ref: Any, tmp_path: Path) -> None:
    """The names of layers stand beside their cells; a link there is refused as well."""
    import h5py

    for place in ("layers", "layers/lstm/cell", "layers/lstm/vars"):
        with h5py.File(tmp_path / "w.h5", "w") as file:
            if place != "layers":
                for index, array in enumerate(ref.draw("LSTM", 4, 6)):
                    file[f"{'elsewhere' if 'cell' in place else 'layers/lstm/cell'}/vars/{index}"] = array
            file[place] = h5py.ExternalLink("/etc/passwd", "/")
        refused(lambda: from_keras(tmp_path / "w.h5"), "is a link|no LSTM or GRU")


def test_configurations_that_are_bombs(ref: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.keras"
    text = json.dumps({"class_name": "Sequential", "config": {"layers": [[]] * 2_300_000}})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", text)
        file.writestr("model.weights.h5", b"nothing")
    assert path.stat().st_size < 100_000
    refused(lambda: from_keras(path), r"m\.keras: config\.json claims \d+ bytes, expected at most 8388608")
    monkeypatch.setattr("gpurnn.convert.keras.model.TEXT", 1 << 20)
    path = changed(ref, tmp_path / "m.h5", lambda file: file.attrs.__setitem__("model_config", text[: 2 << 20]))
    refused(lambda: list_keras(path), r"m\.h5: its model's configuration has 2097152 characters")
    nested: dict[str, Any] = {"class_name": "LSTM", "config": {}}
    for _ in range(200):
        nested = {"class_name": "Bidirectional", "config": {"name": "l", "layer": nested}}
    path = changed(ref, tmp_path / "m.h5", lambda file: file.attrs.__setitem__("model_config", json.dumps(nested)))
    refused(lambda: from_keras(path), r"m\.h5: ")


# ONNX


@pytest.fixture
def om() -> Any:
    pytest.importorskip("onnx")
    import onnx_models

    return onnx_models


def test_onnx_with_too_many_nodes(om: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import helper

    from gpurnn.convert.onnx import graph as onnx_graph

    for name, value in (("NODES", 100), ("PARTS", 1000), ("RECURRENT", 10)):
        monkeypatch.setattr(onnx_graph, name, value)
    weights = om.weights("LSTM", 3, 4)
    rnn = om.node_of("LSTM", {"X", *weights}, 4)
    plain = [helper.make_node("Identity", ["X"], [f"a{index}"]) for index in range(99)]
    assert from_onnx(om.model_of([*plain, rnn], weights)).hidden_size == 4
    refused(lambda: from_onnx(om.model_of([*plain, plain[0], rnn], weights)), "more than 100 nodes")

    def branch(index: int) -> Any:
        return helper.make_graph([helper.make_node("Identity", ["X"], [f"b{index}"])], "b", [], [])

    ifs = [helper.make_node("If", ["f"], [f"c{index}"], then_branch=branch(index)) for index in range(50)]
    refused(lambda: list_onnx(om.model_of([*ifs, rnn], weights)), "more than 100 nodes")
    many = {f"t{index}": np.ones(1, np.float32) for index in range(1000)}
    refused(lambda: list_onnx(om.model_of([rnn], weights | many)), "or 1000 constants")
    rnns = [helper.make_node("LSTM", ["X", "W", "R"], [f"Y{index}"]) for index in range(11)]
    refused(lambda: list_onnx(om.model_of(rnns, weights)), "more than 10 operators")


def test_onnx_with_too_many_weights_to_compute(om: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many operators has a short chain of its own."""
    from onnx import helper

    from gpurnn.convert.onnx import constants as onnx_constants

    monkeypatch.setattr(onnx_constants, "ALL_NODES", 20)
    nodes = []
    for index in range(10):
        nodes += [
            helper.make_node("Identity", ["W"], [f"a{index}"]),
            helper.make_node("Identity", [f"a{index}"], [f"b{index}"]),
        ]
        nodes += [helper.make_node("Identity", [f"b{index}"], [f"c{index}"])]
        nodes += [helper.make_node("LSTM", ["X", f"c{index}", "R"], [f"Y{index}"], hidden_size=4)]
    found = list_onnx(om.model_of(nodes, om.weights("LSTM", 3, 4)))
    assert [one.input_size for one in found] == [3] * 6 + [None] * 4
    assert "all weights by more than 20" in found[-1].note


def test_onnx_that_reads_one_file_again_and_again(om: Any, tmp_path: Path) -> None:
    (tmp_path / "beside").write_bytes(bytes(192))
    tensors = [om.beside(f"W{index}", (1, 16, 3), location="beside") for index in range(40)]
    weights = om.weights("LSTM", 3, 4)
    rnns = [om.helper.make_node("LSTM", ["X", f"W{index}", "R"], [f"Y{index}"], hidden_size=4) for index in range(40)]
    model = om.model_of(rnns, weights)
    model.graph.initializer.extend(tensors)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = list_onnx(tmp_path / "m.onnx")
    assert [one.input_size for one in found] == [3] * 16 + [None] * 24
    assert "more is read than 16 times" in found[-1].note
