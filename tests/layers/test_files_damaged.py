"""Files that are no layers, or not quite: an error that names the file, no memory taken on a file's word."""

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Floats, assert_same_bits

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
