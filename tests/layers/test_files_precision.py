"""Files of layers with a precision: half and a quarter of the size, the bits of what was saved, damage refused."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Floats, assert_same_bits, leaves
from safetensors import safe_open
from test_files_damaged import Header, built, change_arguments, little_memory, parsed

import gpurnn
from gpurnn_kernels.quantised import Quantised

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "lstm-options": ("LSTM", {"proj_size": 3, "peepholes": True, "clip": 3.0, "bias": False}),
    "lstm-coupled": ("LSTM", {"input_forget": True}),
    "gru": ("GRU", {"bidirectional": True}),
    "gru-after": ("GRU", {"reset_after": True, "num_layers": 2}),
}
PRECISIONS = ["bf16", "int8"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer.safetensors"


def made(kind: str, precision: str | None, **sizes: int) -> Any:
    name, options = KINDS[kind]
    return getattr(gpurnn, name)(**{"input_size": 7, "hidden_size": 9} | sizes, precision=precision, seed=0, **options)


def outputs(layer: Any) -> tuple[Floats, ...]:
    x = np.random.default_rng(0).standard_normal((5, 3, layer.input_size)).astype(np.float32)
    return tuple(leaves(layer(x)))


@every_kind
@every_precision
def test_the_bits_of_what_was_saved(kind: str, precision: str, path: Path) -> None:
    layer = made(kind, precision)
    layer.save(path)
    loaded = gpurnn.load(path)
    assert repr(loaded) == repr(layer)
    assert_same_bits(outputs(loaded), outputs(layer))
    for name, array in loaded.params.items():
        assert array.dtype == np.float32
        if "W_" not in name:
            assert_same_bits(array, layer.params[name])
    again = path.with_name("again.safetensors")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@every_precision
def test_sizes(precision: str, path: Path) -> None:
    layer = made("lstm", precision, input_size=100, hidden_size=100)
    layer.with_precision(None).save(path)
    whole = path.stat().st_size
    layer.save(path)
    assert path.stat().st_size < whole * {"bf16": 0.51, "int8": 0.27}[precision]


def test_the_format(path: Path) -> None:
    """Float files are what earlier versions wrote, and read."""
    for precision, version in ((None, "1"), ("tf32", "1"), ("bf16", "2"), ("int8", "2")):
        gpurnn.LSTM(3, 4, precision=precision).save(path)
        with safe_open(path, "np") as file:
            assert file.metadata()["gpurnn_format"] == version
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        weight = {"bf16": "BF16", "int8": "I8"}.get(str(precision), "F32")
        assert kinds["layers.0.W_x"] == kinds["layers.0.W_h"] == weight
        assert kinds["layers.0.b"] == "F32"
        assert ("layers.0.W_x.scales" in kinds) == (precision == "int8")


@every_precision
def test_layers_of_the_first_format(precision: str, path: Path) -> None:
    """A file may have a precision and whole weights."""
    layer = gpurnn.LSTM(3, 4)
    layer.save(path)
    header, tensors = parsed(path.read_bytes())
    header["__metadata__"]["gpurnn"] = change_arguments(header["__metadata__"]["gpurnn"], precision=precision)
    path.write_bytes(built(header, tensors))
    assert gpurnn.load(path).precision == precision
    assert_same_bits(gpurnn.load(path).params, layer.params)


def test_bfloat16_is_rounded_as_kernels_round(path: Path) -> None:
    layer = gpurnn.GRU(3, 4, precision="bf16", seed=0)
    odd = layer.params["layers.0.W_x"].copy()
    odd[0] = np.nan, np.inf, -1e-40
    layer.load_params(layer.params | {"layers.0.W_x": odd})
    layer.save(path)
    found = gpurnn.load(path).params["layers.0.W_x"]
    assert np.isnan(found[0, 0])
    assert_same_bits(found[0, 1:], np.float32([np.inf, -0.0]))
    assert not (found.view(np.uint32) & 0xFFFF).any()
    assert np.abs(found[1:] - odd[1:]).max() <= np.abs(odd[1:]).max() * 2.0**-8


def test_weights_without_integers(path: Path) -> None:
    layer = gpurnn.GRU(3, 4, precision="int8")
    odd = layer.params["layers.0.W_h"].copy()
    odd[5, 1] = np.inf
    layer.load_params(layer.params | {"layers.0.W_h": odd})
    with pytest.raises(ValueError, match=r"layers\.0\.W_h: row 5 has a NaN or an infinity"):
        layer.save(path)
    assert not path.exists()


def test_a_row_of_zeros(path: Path) -> None:
    layer = gpurnn.GRU(3, 4, precision="int8", seed=0)
    zeros = layer.params["layers.0.W_h"].copy()
    zeros[5] = 0
    layer.load_params(layer.params | {"layers.0.W_h": zeros})
    layer.save(path)
    assert_same_bits(outputs(gpurnn.load(path)), outputs(layer))
    assert not gpurnn.load(path).params["layers.0.W_h"][5].any()


@every_precision
def test_another_precision_at_loading(precision: str, path: Path) -> None:
    layer = made("lstm", precision)
    layer.save(path)
    loaded = gpurnn.load(path)
    for other in ("bf16", "int8", None):
        found = gpurnn.load(path, precision=other or "float32")
        assert found.precision == other
        assert_same_bits(found.params, loaded.params)
        assert_same_bits(outputs(found), outputs(loaded.with_precision(other)))


# --- integers that a layer was made of ---


def exact(kind: str = "lstm") -> Any:
    """An int8 layer whose integers no rounding of floats would give: their largest are not 127."""
    layer, rng = made(kind, "int8"), np.random.default_rng(1)
    given = dict(layer.params)
    for name, array in layer.params.items():
        if "W_" in name:
            values = rng.integers(-128, 101, array.shape).astype(np.int8)
            scales = rng.uniform(1e-3, 2e-3, len(array)).astype(np.float32)
            if kind.startswith("gru"):
                scales[: layer.hidden_size] *= -1
            given[name] = Quantised(values, scales)
    return type(layer).with_params(layer.configuration(), given)


def integers(layer: Any) -> dict[str, Any]:
    """The integers that the layer holds, which are those that its kernels multiply by."""
    from gpurnn_kernels.cpu.products.formats import FORMATS

    held = layer._prepared.integers
    words = {name: FORMATS["int8"].encoded(one).view(np.int8)[:, 8:] for name, one in held.items()}
    for name, one in held.items():
        assert np.array_equal(words[name][:, : one.shape[1]], one.values)
    return {name: (one.values, one.scales) for name, one in held.items()}


@every_kind
def test_integers_are_kept(kind: str, path: Path) -> None:
    layer = exact(kind)
    held = integers(layer)
    assert len(held) == sum("W_" in name for name in layer.params)
    layer.save(path)
    others = [gpurnn.load(path), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.with_precision("int8")]
    for other in others:
        assert_same_bits(integers(other), held)
        assert_same_bits(other.params, layer.params)
        assert_same_bits(outputs(other), outputs(layer))
    for name, (values, scales) in held.items():
        assert_same_bits(layer.params[name], values.astype(np.float32) * scales[:, None])


@every_kind
def test_what_they_compute(kind: str) -> None:
    """Outputs near to those of a float32 layer of the same weights; not those of weights that are rounded anew."""
    layer = exact(kind)
    floats = layer.with_precision(None)
    assert not floats._prepared.integers
    assert_same_bits(floats.params, layer.params)
    for got, wanted in zip(outputs(layer), outputs(floats), strict=True):
        assert 0 < np.abs(got - wanted).max() < 0.02
    renewed = exact(kind)
    renewed.load_params(renewed.params)
    assert not renewed._prepared.integers
    assert_same_bits(outputs(renewed), outputs(floats.with_precision("int8")))
    assert any((a != b).any() for a, b in zip(outputs(renewed), outputs(layer), strict=True))


def test_streams_have_them() -> None:
    layer = made("gru-after", "int8")
    layer = exact("gru-after")
    x = np.random.default_rng(0).standard_normal((5, 3, 7)).astype(np.float32)
    stream = pickle.loads(pickle.dumps(layer.stream(3)))
    assert_same_bits(np.stack([stream.step(x_t) for x_t in x]), layer(x)[0])


def test_integers_nobody_changes() -> None:
    values, scales = np.ones((16, 3), np.int8), np.ones(16, np.float32)
    layer = gpurnn.LSTM(3, 4, precision="int8")
    layer = gpurnn.LSTM.with_params(layer.configuration(), layer.params | {"layers.0.W_x": Quantised(values, scales)})
    before = outputs(layer)
    values[:] = scales[:] = 2
    assert_same_bits(outputs(layer), before)
    assert_same_bits(layer.params["layers.0.W_x"], np.ones((16, 3), np.float32))
    with pytest.raises(ValueError, match=r"layers\.0\.W_x: expected shape \(16, 3\), got \(15, 3\)"):
        layer.load_params(layer.params | {"layers.0.W_x": Quantised(values[1:], scales[1:])})


# --- damaged files ---


def changed(path: Path, precision: str, name: str, change: Callable[[Floats], Any]) -> None:
    """A file of an LSTM whose tensor of that name was changed: its numbers, or its entry in the header."""
    gpurnn.LSTM(3, 4, precision=precision, seed=0).save(path)
    header, tensors = parsed(path.read_bytes())
    begin, end = header[name]["data_offsets"]
    dtype = {"F32": np.float32, "I8": np.int8, "BF16": np.uint16}[header[name]["dtype"]]
    array = np.frombuffer(tensors[begin:end], dtype).copy()
    change(array)
    path.write_bytes(built(header, tensors[:begin] + array.tobytes() + tensors[end:]))


@pytest.mark.parametrize("scale", [0, -0.0, np.nan, np.inf, -np.inf, -0.01, 1e38])
@pytest.mark.parametrize("row", [0, 15])
def test_scales_that_no_weights_have(scale: float, row: int, path: Path) -> None:
    changed(path, "int8", "layers.0.W_h.scales", lambda scales: scales.__setitem__(row, scale))
    with pytest.raises(
        ValueError, match=rf"{path.name}: layers\.0\.W_h\.scales: row {row}: expected a scale above 0 and below"
    ):
        gpurnn.load(path)


def test_scales_below_0_are_those_of_z(path: Path) -> None:
    layer = exact("gru")
    layer.save(path)
    header, tensors = parsed(path.read_bytes())
    at = header["layers.0.W_x.scales"]["data_offsets"][0]
    numbers = bytearray(tensors)
    numbers[at + 4 * 9 : at + 4 * 10] = np.float32(-1).tobytes()
    path.write_bytes(built(header, bytes(numbers)))
    with pytest.raises(ValueError, match=r"row 9: expected a scale above 0 and below 2[*][*]120, got -1"):
        gpurnn.load(path)


HEADERS: dict[str, Callable[[Header], Any]] = {
    "scales are missing": lambda h: h.pop("layers.0.W_x.scales"),
    "scales of no weight": lambda h: h.update({"layers.0.b.scales": h.pop("layers.0.W_x.scales")}),
    "scales of another shape": lambda h: h["layers.0.W_x.scales"].update(shape=[4, 4]),
    "scales of integers": lambda h: h["layers.0.W_x.scales"].update(dtype="I32"),
    "unsigned": lambda h: h["layers.0.W_x"].update(dtype="U8"),
    "transposed": lambda h: h["layers.0.W_x"].update(shape=[3, 16]),
    "flat": lambda h: h["layers.0.W_x"].update(shape=[48]),
    "another precision": lambda h: _arguments(h, precision="bf16"),
    "no precision": lambda h: _arguments(h, precision=None),
    "tf32": lambda h: _arguments(h, precision="tf32"),
    "float64": lambda h: _arguments(h, dtype="float64"),
    "the first format": lambda h: h["__metadata__"].update(gpurnn_format="1"),
    "a later format": lambda h: h["__metadata__"].update(gpurnn_format="3"),
    "huge": lambda h: _arguments(h, hidden_size=10**9),
    "more layers": lambda h: _arguments(h, num_layers=5),
}


def _arguments(header: Header, **changes: Any) -> None:
    header["__metadata__"]["gpurnn"] = change_arguments(header["__metadata__"]["gpurnn"], **changes)


@pytest.mark.parametrize("wrong", HEADERS)
def test_wrong_headers(wrong: str, path: Path) -> None:
    gpurnn.LSTM(3, 4, precision="int8").save(path)
    header, tensors = parsed(path.read_bytes())
    HEADERS[wrong](header)
    path.write_bytes(built(header, tensors))
    with pytest.raises(ValueError, match=path.name), little_memory():
        gpurnn.load(path)


@every_precision
def test_truncated_and_damaged(precision: str, path: Path) -> None:
    """Any byte of the header changed, and files cut short: ValueError, or a layer of the sizes that the file has."""
    layer = gpurnn.GRU(2, 3, precision=precision)
    layer.save(path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for size in rng.integers(0, len(data), 20):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=path.name):
            gpurnn.load(path)
    refused = 0
    for at in range(8 + int.from_bytes(data[:8], "little")):
        damaged = bytearray(data)
        damaged[at] = rng.choice([*list(b'0189"{}[],:. \x00\xff-eE'), damaged[at] ^ 1])
        path.write_bytes(damaged)
        try:
            with little_memory():
                loaded = gpurnn.load(path)
            assert {name: a.shape for name, a in loaded.params.items()} == {n: a.shape for n, a in layer.params.items()}
        except ValueError:
            refused += 1
    assert refused > 300


def test_a_file_that_changes_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bfloat16 are read apart from the rest."""
    from gpurnn.layers import storage

    gpurnn.LSTM(3, 4, precision="bf16").save(path)
    read = storage.read_bf16
    for data in (b"", b"\xff" * 100, built({"layers.0.W_x": {"dtype": "BF16", "data_offsets": [0, 10**12]}}, b"")):

        def late(source: Path, shapes: Any, data: bytes = data) -> Any:
            other = source.with_name("other")
            other.write_bytes(data)
            return read(other, shapes)

        monkeypatch.setattr(storage, "read_bf16", late)
        with pytest.raises(ValueError, match=f"{path.name}: it has changed while it was read"), little_memory():
            gpurnn.load(path)


def test_weights_whose_scale_no_file_may_have_are_not_saved(path: Path) -> None:
    layer = gpurnn.LSTM(3, 4, precision="int8")
    large = layer.params["layers.0.W_x"].copy()
    large[5, 1] = 2e38
    layer.load_params(layer.params | {"layers.0.W_x": large})
    with pytest.raises(ValueError, match=r"W_x: row 5: expected a scale below"):
        layer.save(path)
    assert not path.exists()
