"""PyTorch's weights of fewer bits: dynamically quantised modules, quantised tensors, float16 and bfloat16."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, leaves

import gpurnn
from gpurnn.convert.torch.files import from_file

torch = pytest.importorskip("torch")
pytest.importorskip("torch.ao.nn.quantized.dynamic")
KINDS = ["LSTM", "GRU", "LSTMCell", "GRUCell"]
SETTINGS = ["tensor", "row"]


@pytest.fixture(autouse=True)
def _deprecated() -> Iterator[None]:
    """PyTorch warns of torch.ao.quantization, and of the storage of quantised tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def made(kind: str, setting: str, *options: Any, **more: Any) -> Any:
    """A quantised module in a model; `setting`: one scale a matrix, or one a row."""
    torch.manual_seed(0)
    cls = getattr(torch.nn, kind)
    model = torch.nn.Sequential(cls(*(options or (7, 9)), **more)).eval()
    how = torch.ao.quantization.per_channel_dynamic_qconfig if setting == "row" else None
    if how is None:
        return torch.ao.quantization.quantize_dynamic(model, {cls}, dtype=torch.qint8)
    return torch.ao.quantization.quantize_dynamic(model, {cls: how})


def source(module: Any) -> dict[str, Any]:
    """The quantised matrices, by the names of layers."""
    return {name if "_l" in name else name + "_l0": one for name, one in module.get_weight().items()}


def assert_exact(layer: Any, module: Any) -> None:
    """The parameters are the numbers that PyTorch multiplies by, the integers PyTorch's."""
    order = [1, 0, 3, 2] if isinstance(layer, gpurnn.LSTM) else [1, 0, 2]  # f, i, o, g among i, f, g, o; z, r, n among r, z, n
    held = layer._prepared.integers
    assert set(held) == {name for name in layer.params if "W_" in name}
    for name, tensor in source(module).items():
        _, letters, place, *reverse = name.split("_")
        own = f"layers.{place[1:]}." + "reverse." * bool(reverse) + {"ih": "W_x", "hh": "W_h"}[letters]
        both = tensor.dequantize(), tensor.int_repr()
        floats, integers = (np.stack(np.split(one.numpy(), len(order)))[order] for one in both)
        if isinstance(layer, gpurnn.GRU):
            floats[0] *= -1
        assert_same_bits(layer.params[own], floats.reshape(tensor.shape))
        assert_same_bits(held[own].values, integers.reshape(tensor.shape))


def errors(layer: Any, module: Any) -> tuple[float, float]:
    """The rms of what the layer's outputs differ by from the module's, and of those."""
    x = np.random.default_rng(0).standard_normal((20, 4, layer.input_size)).astype(np.float32)
    with torch.no_grad():
        if isinstance(module, (torch.ao.nn.quantized.dynamic.LSTMCell, torch.ao.nn.quantized.dynamic.GRUCell)):
            state, steps = None, []
            for step in torch.from_numpy(x):
                state = module(step, state)
                steps.append(state[0] if isinstance(state, tuple) else state)
            wanted = torch.stack(steps).numpy()
        else:
            wanted = module(torch.from_numpy(x))[0].numpy()
    y = layer(x)[0]
    return float(np.sqrt(np.mean((y - wanted) ** 2))), float(np.sqrt(np.mean(wanted**2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_modules(kind: str, setting: str) -> None:
    model = made(kind, setting)
    layer = gpurnn.from_torch(model)
    assert layer.precision == "int8"
    assert_exact(layer, model[0])
    wrong, size = errors(layer, model[0])
    assert wrong < 0.02 * size
    assert_same_bits(gpurnn.from_torch(model[0]).params, layer.params)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_stacks_of_both_directions(kind: str) -> None:
    model = made(kind, "row", 7, 9, 3, bidirectional=True)
    layer = gpurnn.from_torch(model)
    assert_exact(layer, model[0])
    wrong, size = errors(layer, model[0])
    assert wrong < 0.03 * size
    assert gpurnn.from_torch(made(kind, "tensor", 7, 9, batch_first=True)).batch_first


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_other_precisions(kind: str, tmp_path: Path) -> None:
    model = made(kind, "row")
    exact = gpurnn.from_torch(model)
    for precision in ("float32", "bf16", "tf32"):
        layer = gpurnn.from_torch(model, precision=precision)
        assert layer.precision == (None if precision == "float32" else precision)
        assert not layer._prepared.integers
        assert_same_bits(layer.params, exact.params)
    assert_same_bits(gpurnn.from_torch(model, precision="int8").params, exact.params)
    exact.save(tmp_path / "m.safetensors")
    loaded = gpurnn.load(tmp_path / "m.safetensors")
    assert_exact(loaded, model[0])
    x = np.random.default_rng(0).standard_normal((5, 3, 7)).astype(np.float32)
    assert_same_bits(tuple(leaves(loaded(x))), tuple(leaves(exact(x))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_state_dicts(kind: str, setting: str) -> None:
    model = made(kind, setting)
    layer = gpurnn.from_torch(model.state_dict(), prefix="0")
    assert repr(layer) == repr(gpurnn.from_torch(model))
    assert_exact(layer, model[0])
    assert_same_bits(layer.params, gpurnn.from_torch(model).params)


@pytest.mark.parametrize(
    "options",
    [(7, 9, 2), (7, 9, 3), (7, 9, 4), (9, 9, 3), (7, 9, 1, True), (7, 9, 2, True), (9, 9, 2, True), (18, 9, 1, True)],
)
def test_state_dicts_of_stacks(options: tuple[Any, ...]) -> None:
    """They number cells; layers and directions follow from the sizes."""
    inputs, hidden, layers, two = (*options, False)[:4]
    model = made("GRU", "tensor", inputs, hidden, layers, bidirectional=two)
    layer = gpurnn.from_torch(model.state_dict())
    assert (layer.num_layers, layer.bidirectional) == (layers, two)
    assert_exact(layer, model[0])


def test_a_state_dict_that_does_not_tell() -> None:
    with pytest.raises(ValueError, match=r"0\.: two layers, or two directions: .* hand in the module"):
        gpurnn.from_torch(made("LSTM", "tensor", 9, 9, 2).state_dict())


def test_other_objects_in_a_state_dict() -> None:
    state = made("LSTM", "tensor").state_dict()
    linear = made("GRUCell", "tensor").state_dict()["0._packed_weight_ih"]
    with pytest.raises(ValueError, match=r"0\._all_weight_values\.0: not the weights of a quantised cell"):
        gpurnn.from_torch(dict.fromkeys(state, linear))


def test_the_command_line(tmp_path: Path) -> None:
    """Files of packed weights are pickled objects."""
    torch.save(made("LSTM", "tensor").state_dict(), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"packed weights of a quantised module .* nothing of them was run; load the model"):
        from_file(tmp_path / "m.pt")


def quantised_state(zeros: int = 0, dtype: Any = None, kind: str = "LSTM") -> dict[str, Any]:
    """A state dict of quantised tensors."""
    torch.manual_seed(0)
    state = getattr(torch.nn, kind)(7, 9).state_dict()
    return {
        name: torch.quantize_per_tensor(one, 0.003, zeros, dtype or torch.qint8) if "weight" in name else one
        for name, one in state.items()
    }


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_files_of_quantised_tensors(kind: str, tmp_path: Path) -> None:
    state = quantised_state(kind=kind)
    torch.save({"model": state}, tmp_path / "m.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = from_file(tmp_path / "m.pt")
    assert layer.precision == "int8"
    order = [1, 0, 3, 2] if kind == "LSTM" else [1, 0, 2]
    for own, name in (("W_x", "weight_ih_l0"), ("W_h", "weight_hh_l0")):
        integers = np.concatenate([np.split(state[name].int_repr().numpy(), len(order))[gate] for gate in order])
        assert_same_bits(layer._prepared.integers[f"layers.0.{own}"].values, integers)
    assert from_file(tmp_path / "m.pt", precision="float32").precision is None


def test_zero_points() -> None:
    """Weights around 128 are integers around 0; what the zero point moves out of 8 bits is refused, or taken as floats."""
    signed = gpurnn.from_torch(quantised_state())
    unsigned = gpurnn.from_torch(quantised_state(128, torch.quint8))
    assert_same_bits(unsigned.params, signed.params)
    for name, one in unsigned._prepared.integers.items():
        assert_same_bits(one.values, signed._prepared.integers[name].values)
    state = quantised_state(90, torch.quint8)
    state = {name: one if "weight" not in name else _wide(one) for name, one in state.items()}
    with pytest.raises(NotImplementedError, match=r"weight_\w+: zero points: its integers .* lie in -10\.\.245.*'float32'"):
        gpurnn.from_torch(state)
    layer = gpurnn.from_torch(state, precision="float32")
    wanted = state["weight_ih_l0"].dequantize().numpy()
    assert_same_bits(np.sort(layer.params["layers.0.W_x"], None), np.sort(wanted, None))


def _wide(tensor: Any) -> Any:
    """The same sizes, with integers from one end to the other."""
    spread = torch.linspace(-0.03, 0.735, tensor.numel()).reshape(tensor.shape)
    return torch.quantize_per_tensor(spread, 0.003, 10, torch.quint8)


REFUSED: dict[str, tuple[Any, str]] = {
    "32 bits": (lambda: quantised_state(0, torch.qint32), "expected a matrix of 8-bit integers, got torch.qint32"),
    "columns": (
        lambda: {
            name: torch.quantize_per_channel(
                one, torch.full((one.shape[1],), 0.01), torch.zeros(one.shape[1], dtype=torch.int), 1, torch.qint8
            )
            if "weight" in name
            else one
            for name, one in torch.nn.LSTM(7, 9).state_dict().items()
        },
        "expected one scale, or one for each row, got per_channel_affine",
    ),
    "zero point": (
        lambda: {
            name: torch._make_per_tensor_quantized_tensor(one.to(torch.int8), 0.1, 2**40) if "weight" in name else one
            for name, one in torch.nn.LSTM(7, 9).state_dict().items()
        },
        r"weight_ih_l0: zero points: expected -128\.\.127, got 1099511627776",
    ),
    "scale": (
        lambda: {
            name: torch._make_per_tensor_quantized_tensor(one.to(torch.int8), float("inf"), 0) if "weight" in name else one
            for name, one in torch.nn.LSTM(7, 9).state_dict().items()
        },
        "weight_ih_l0: scales: row 0: expected a scale above 0 and below .*, got inf",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    make, match = REFUSED[what]
    with pytest.raises(ValueError, match=match):
        gpurnn.from_torch(make())


# --- halves ---

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_halves(dtype: Any, kind: str, tmp_path: Path) -> None:
    """Widened, which is exact; the sum of two biases is rounded to float32, not to what they were."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(7, 9).to(dtype)
    wide = gpurnn.from_torch({name: one.float() for name, one in module.state_dict().items()})
    torch.save(module.state_dict(), tmp_path / "m.pt")
    layers = [gpurnn.from_torch(module), gpurnn.from_torch(module.state_dict()), from_file(tmp_path / "m.pt")]
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({f"a.{name}": one for name, one in module.state_dict().items()}, tmp_path / "m.safetensors")
    layers.append(from_file(tmp_path / "m.safetensors"))
    for layer in layers:
        assert layer.precision is None
        assert layer.dtype == np.float32
        assert_same_bits(layer.params, wide.params)
    for precision in ("bf16", "int8"):
        assert gpurnn.from_torch(module, precision=precision).precision == precision
        assert from_file(tmp_path / "m.safetensors", precision=precision).precision == precision


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_bfloat16_stays_what_it_is(kind: str, tmp_path: Path) -> None:
    """A bf16 layer of bfloat16 weights multiplies by these, and stores these."""
    torch.manual_seed(0)
    layer = gpurnn.from_torch(getattr(torch.nn, kind)(7, 9).bfloat16(), precision="bf16")
    layer.save(tmp_path / "m.safetensors")
    assert_same_bits(gpurnn.load(tmp_path / "m.safetensors").params, layer.params)


def test_halves_of_numpy() -> None:
    state = {name: one.numpy() for name, one in torch.nn.LSTM(7, 9).half().state_dict().items()}
    assert gpurnn.from_torch(state).dtype == np.float32


def test_dynamic_float16() -> None:
    """Weights of float16, everything else float32."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.GRU(7, 9, 2))
    half = torch.ao.quantization.quantize_dynamic(model, {torch.nn.GRU}, dtype=torch.float16)
    layer = gpurnn.from_torch(half)
    assert layer.precision is None
    assert_same_bits(gpurnn.from_torch(half.state_dict()).params, layer.params)
    wrong, _ = errors(layer, half[0])
    assert wrong < 1e-6
    weights = layer.params["layers.0.W_h"]
    assert_same_bits(weights.astype(np.float16).astype(np.float32), weights)
