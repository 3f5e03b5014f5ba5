"""Layers in files: what comes back, and that nothing else does."""

import errno
import json
import os
import re
import stat
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LAYERS, Floats, Problem, assert_same_bits, leaves
from reference_cells import CELLS

import gpurnn

Header = dict[str, Any]
KINDS = {np.dtype("float32"): "F32", np.dtype("float64"): "F64", np.dtype("float16"): "F16", np.dtype("int32"): "I32"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer.safetensors"


def parsed(data: bytes) -> tuple[Header, bytes]:
    """A file's header and its tensors' bytes."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def built(header: Header, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def file_of(arrays: dict[str, Floats], metadata: dict[str, str] | None) -> bytes:
    header: Header = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, a in arrays.items():
        header[name] = {"dtype": KINDS[a.dtype], "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    return built(header, b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values()))


def metadata_of(layer: Any, path: Path) -> dict[str, str]:
    layer.save(path)
    found: dict[str, str] = parsed(path.read_bytes())[0]["__metadata__"]
    return found


@contextmanager
def little_memory(limit: int = 1 << 20) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
def test_round_trip(cell: str, dtype: str, options: dict[str, Any], path: Path) -> None:
    p = Problem(cell, dtype=dtype, **options)
    p.layer.save(path)
    for given in (path, str(path)):
        layer = gpurnn.load(given)
        assert type(layer) is type(p.layer)
        assert repr(layer) == repr(p.layer)
        assert_same_bits(layer.params, p.layer.params)
        x = p.laid_out(p.x)
        assert_same_bits(tuple(leaves(layer(x))), tuple(leaves(p.layer(x))))


def test_all_arguments_come_back(path: Path) -> None:
    layer = gpurnn.LSTM(3, 4, 2, batch_first=True, forget_bias=1.5, dtype="float64", seed=3)
    layer.save(path)
    loaded = gpurnn.load(path)
    assert loaded.configuration() == layer.configuration()
    assert_same_bits(loaded.params, layer.params)


def test_the_format(path: Path) -> None:
    """Plain safetensors: names as in params, metadata of texts with a version and the arguments as JSON."""
    layer = gpurnn.GRU(3, 4, reset_after=True)
    metadata = metadata_of(layer, path)
    description = json.loads(metadata["gpurnn"])
    assert metadata["gpurnn_format"] == "1"
    assert description["layer"] == "GRU"
    assert description["arguments"]["reset_after"] is True
    from safetensors.numpy import load_file

    arrays = load_file(path)
    assert_same_bits({name: arrays[name] for name in layer.params}, layer.params)


def test_saving_replaces_a_file_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = gpurnn.LSTM(3, 4, seed=1), gpurnn.LSTM(3, 4, seed=2)
    first.save(path)
    for name in ("replace", "open"):
        with monkeypatch.context() as broken:

            def fail(*_: Any, **__: Any) -> None:
                raise OSError(errno.ENOSPC, "disk full")

            broken.setattr(os, name, fail)
            with pytest.raises(OSError, match=re.escape(f"{os.strerror(errno.ENOSPC)}: {str(path)!r}")):
                second.save(path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        assert_same_bits(gpurnn.load(path).params, first.params)
    second.save(path)
    assert_same_bits(gpurnn.load(path).params, second.params)


def test_where_nothing_can_be_saved(tmp_path: Path) -> None:
    layer = gpurnn.LSTM(3, 4)
    with pytest.raises(FileNotFoundError):
        layer.save(tmp_path / "no" / "such.safetensors")
    with pytest.raises(OSError):  # noqa: PT011
        layer.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_follow_the_umask(path: Path) -> None:
    before = os.umask(0o027)
    try:
        gpurnn.LSTM(3, 4).save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_umask_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the process's: while it is another, files of other threads get other permissions."""
    called: list[int] = []
    monkeypatch.setattr(os, "umask", called.append)
    gpurnn.LSTM(3, 4).save(path)
    assert called == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_its_permissions(mode: int, path: Path) -> None:
    path.touch()
    path.chmod(mode)
    gpurnn.LSTM(3, 4).save(path)
    assert path.stat().st_mode & 0o777 == mode
    assert gpurnn.load(path).hidden_size == 4


@pytest.mark.skipif(os.name == "nt" or os.getuid(), reason="gives a file away")
def test_a_file_keeps_its_owner(path: Path) -> None:
    path.touch()
    os.chown(path, 12345, 12346)
    gpurnn.LSTM(3, 4).save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_saving_follows_links(path: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path.symlink_to("there/other.safetensors")
    for size in (4, 5):  # nothing is there, and a layer is
        gpurnn.LSTM(3, size).save(path)
        assert path.is_symlink()
        assert gpurnn.load(tmp_path / "there" / "other.safetensors").hidden_size == size
    assert [one.name for one in (tmp_path / "there").iterdir()] == ["other.safetensors"]
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(OSError, match=f"symbolic links: '{path}'"):
        gpurnn.LSTM(3, 4).save(path)


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_what_is_no_file_stays(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "null"
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    for target in (pipe, link):
        with pytest.raises(ValueError, match=f"{target}: not a regular file"):
            gpurnn.LSTM(3, 4).save(target)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert len(list(tmp_path.iterdir())) == 2


def test_long_names(tmp_path: Path) -> None:
    """As long as the system takes: the file beside it has a name of its own."""
    path = tmp_path / ("x" * 243 + ".safetensors")
    gpurnn.LSTM(3, 4).save(path)
    assert gpurnn.load(path).hidden_size == 4


def test_missing_files_and_folders(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        gpurnn.load(path)
    with pytest.raises(FileNotFoundError):
        gpurnn.load(tmp_path / "no" / "such")
    with pytest.raises(ValueError, match="folder"):
        gpurnn.load(tmp_path)
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        gpurnn.load(path)


def test_truncated_files(path: Path) -> None:
    gpurnn.LSTM(3, 4, 2).save(path)
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for size in {0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) // 2, len(data) - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=path.name):
            gpurnn.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match=path.name):
        gpurnn.load(path)


def test_random_bytes(path: Path) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 8, 16, 100, 10_000):
        for _ in range(20):
            path.write_bytes(rng.bytes(size))
            with pytest.raises(ValueError, match=path.name), little_memory():
                gpurnn.load(path)


def test_damaged_headers(path: Path) -> None:
    """Any byte of the header changed: ValueError, or a layer of the sizes that the file has."""
    layer = gpurnn.GRU(2, 3)
    layer.save(path)
    data = bytearray(path.read_bytes())
    size = sum(a.nbytes for a in layer.params.values())
    rng = np.random.default_rng(0)
    refused = 0
    for at in range(len(data) - size):
        changed = data.copy()
        changed[at] = rng.choice([*list(b'0189"{}[],:. \x00\xff-eE'), changed[at] ^ 1])
        path.write_bytes(changed)
        try:
            with little_memory():
                loaded = gpurnn.load(path)
            assert sum(a.nbytes for a in loaded.params.values()) == size
        except ValueError:
            refused += 1
    assert refused > 300


def change_arguments(text: str, **changes: Any) -> str:
    description = json.loads(text)
    description["arguments"] |= changes
    return json.dumps(description)


HUGE = {
    "hidden size": {"hidden_size": 10**9},
    "larger than an index": {"hidden_size": 2**80, "input_size": 2**80},
    "input size": {"input_size": 10**12},
    "layers": {"num_layers": 10**12},
    "a few layers more": {"num_layers": 5},
}


@pytest.mark.parametrize("huge", HUGE)
def test_huge_sizes_in_the_metadata(huge: str, path: Path) -> None:
    layer = gpurnn.LSTM(3, 4)
    metadata = metadata_of(layer, path)
    metadata["gpurnn"] = change_arguments(metadata["gpurnn"], **HUGE[huge])
    path.write_bytes(file_of(dict(layer.params), metadata))
    with pytest.raises(ValueError, match=path.name), little_memory():
        gpurnn.load(path)


@pytest.mark.parametrize("consistent", [False, True])
def test_huge_tensors_in_the_header(consistent: bool, path: Path) -> None:
    layer = gpurnn.LSTM(3, 4)
    metadata = metadata_of(layer, path)
    header, tensors = parsed(path.read_bytes())
    H = 10**6
    metadata["gpurnn"] = change_arguments(metadata["gpurnn"], hidden_size=H)
    header["__metadata__"] = metadata
    for name, shape in {"layers.0.W_x": [4 * H, 3], "layers.0.W_h": [4 * H, H], "layers.0.b": [4 * H]}.items():
        header[name]["shape"] = shape
    if consistent:
        at = 0
        for name in ("layers.0.W_x", "layers.0.W_h", "layers.0.b"):
            size = 4 * int(np.prod(header[name]["shape"], dtype=object))
            header[name]["data_offsets"] = [at, at + size]
            at += size
    path.write_bytes(built(header, tensors))
    with pytest.raises(ValueError, match=path.name), little_memory():
        gpurnn.load(path)


def test_a_huge_header(path: Path) -> None:
    for size in (2**63, 2**64 - 1, 10**11):
        path.write_bytes(struct.pack("<Q", size) + b"{}" * 10)
        with pytest.raises(ValueError, match=path.name), little_memory():
            gpurnn.load(path)


WRONG_TENSORS: dict[str, Callable[[dict[str, Floats]], dict[str, Floats]]] = {
    "missing": lambda a: {name: b for name, b in a.items() if name != "layers.0.b"},
    "extra": lambda a: a | {"layers.1.b": a["layers.0.b"]},
    "renamed": lambda a: {name.replace("layers", "layer"): b for name, b in a.items()},
    "transposed": lambda a: a | {"layers.0.W_x": a["layers.0.W_x"].T},
    "flat": lambda a: a | {"layers.0.W_h": a["layers.0.W_h"].ravel()},
    "shorter": lambda a: a | {"layers.0.b": a["layers.0.b"][1:]},
    "float64": lambda a: a | {"layers.0.b": a["layers.0.b"].astype(np.float64)},
    "float16": lambda a: a | {"layers.0.b": a["layers.0.b"].astype(np.float16)},
    "integers": lambda a: a | {"layers.0.b": a["layers.0.b"].astype(np.int32)},
    "none": lambda a: {},
}


@pytest.mark.parametrize("wrong", WRONG_TENSORS)
def test_wrong_tensors(wrong: str, path: Path) -> None:
    layer = gpurnn.LSTM(3, 4)
    metadata = metadata_of(layer, path)
    path.write_bytes(file_of(WRONG_TENSORS[wrong](dict(layer.params)), metadata))
    with pytest.raises(ValueError, match=path.name):
        gpurnn.load(path)


@pytest.mark.parametrize("kind", ["BF16", "I16", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "U64", "F128", "", None, 7])
def test_tensors_of_other_types(kind: Any, path: Path) -> None:
    gpurnn.LSTM(3, 4).save(path)
    header, tensors = parsed(path.read_bytes())
    item = {"BF16": 2, "I16": 2, "U64": 8, "F128": 16}.get(kind, 1)
    start, end = header["layers.0.b"]["data_offsets"]
    for shape in ([16], [(end - start) // item]):
        header["layers.0.b"] |= {"dtype": kind, "shape": shape}
        path.write_bytes(built(header, tensors))
        with pytest.raises(ValueError, match=path.name):
            gpurnn.load(path)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_whole_layers_of_other_types(kind: str, path: Path) -> None:
    """Files that are sound but for their element type."""
    layer = gpurnn.LSTM(3, 4)
    header: Header = {"__metadata__": metadata_of(layer, path)}
    at = 0
    for name, a in layer.params.items():
        size = a.size * (2 if kind == "BF16" else 1)
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [at, at + size]}
        at += size
    path.write_bytes(built(header, bytes(at)))
    with pytest.raises(ValueError, match=path.name):
        gpurnn.load(path)


def test_the_wrong_architecture(path: Path) -> None:
    """One layer's tensors under another's description."""
    layers = {
        "lstm": gpurnn.LSTM(3, 4),
        "gru": gpurnn.GRU(3, 4),
        "after": gpurnn.GRU(3, 4, reset_after=True),
        "reverse": gpurnn.LSTM(3, 4, reverse=True),
        "both": gpurnn.LSTM(3, 4, bidirectional=True),
        "stacked": gpurnn.LSTM(3, 4, 2),
        "no-bias": gpurnn.LSTM(3, 4, bias=False),
        "wide": gpurnn.LSTM(3, 5),
        "double": gpurnn.LSTM(3, 4, dtype="float64"),
    }
    metadata = {name: metadata_of(layer, path) for name, layer in layers.items()}
    for name, layer in layers.items():
        for other in layers:
            path.write_bytes(file_of(dict(layer.params), metadata[other]))
            if name == other:
                assert_same_bits(gpurnn.load(path).params, layer.params)
                continue
            with pytest.raises(ValueError, match=path.name):
                gpurnn.load(path)


def wrong_descriptions() -> Iterator[Any]:
    arguments = gpurnn.LSTM(3, 4).configuration()
    whole = {"layer": "LSTM", "arguments": arguments}
    yield from ([], None, 1, "LSTM", {}, {"layer": "LSTM"}, {"arguments": arguments}, [whole], list(arguments))
    yield from (whole | {"layer": other} for other in ("RNN", "GRU", None, 1, [], {}, "__init__", "Stream"))
    yield from (whole | {"arguments": other} for other in (None, [], list(arguments), "x", {}))
    yield whole | {"arguments": arguments | {"seed": 1}}
    yield whole | {"arguments": {name: value for name, value in arguments.items() if name != "hidden_size"}}
    changes: dict[str, tuple[Any, ...]] = {
        "input_size": (0, -3, 3.0, "3", None, True, [3], 10**400, 3.5, 1e400),
        "hidden_size": (0, -4, 4.0, "4", None, 1e308),
        "num_layers": (0, -1, 1.5, "1", None, False),
        "bias": (1, "true", None, False),
        "bidirectional": (1, "no", True),
        "reverse": (None, True),
        "dtype": ("float16", "float64", "int32", "nope", 4, [], {}, "f4,f4", "O", [["a", "f4"]], "", "float32,"),
        "forget_bias": ("1", None, 1e400, [], True, 10**400),
        "proj_size": (2, "2", None, []),
        "peepholes": (True, 1, None),
        "clip": (0, -1.0, False, "x"),
        "precision": ("nope", 1, "float16"),
        "fast_math": ("yes", 1, None),
    }
    for name, values in changes.items():
        for value in values:
            yield whole | {"arguments": arguments | {name: value}}


def test_wrong_descriptions(path: Path) -> None:
    layer = gpurnn.LSTM(3, 4)
    metadata = metadata_of(layer, path)
    texts = [json.dumps(description) for description in wrong_descriptions()]
    texts += ["", "{", "nonsense", "[" * 100_000, '{"layer": ' * 5_000, "1" * 5_000, "\ud7ff", "NaN"]
    for text in texts:
        path.write_bytes(file_of(dict(layer.params), metadata | {"gpurnn": text}))
        with pytest.raises(ValueError, match=path.name):
            gpurnn.load(path)


def test_other_formats(path: Path) -> None:
    layer = gpurnn.LSTM(3, 4)
    metadata = metadata_of(layer, path)
    for version in ("0", "2", "", "1.0"):
        path.write_bytes(file_of(dict(layer.params), metadata | {"gpurnn_format": version}))
        with pytest.raises(ValueError, match="format"):
            gpurnn.load(path)
    for other in (None, {}, {"format": "pt"}, {"gpurnn_format": "1"}, {"gpurnn": metadata["gpurnn"]}):
        path.write_bytes(file_of(dict(layer.params), other))
        with pytest.raises(ValueError, match=path.name):
            gpurnn.load(path)


def test_loading_does_not_use_the_random_seed(path: Path) -> None:
    gpurnn.LSTM(3, 4).save(path)
    state = str(np.random.get_state())  # noqa: NPY002
    assert_same_bits(gpurnn.load(path).params, gpurnn.load(path).params)
    assert str(np.random.get_state()) == state  # noqa: NPY002
