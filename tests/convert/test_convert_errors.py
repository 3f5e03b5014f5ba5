"""Errors of converters name the file; a caller's np.seterr and a module's hooks change nothing."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpurnn.convert import from_keras, from_onnx, from_torch
from gpurnn.convert.torch.files import from_file

TINY, LARGE = np.finfo(np.float32).smallest_normal, 1e30


def onnx_file(path: Path, change: Any) -> Any:
    pytest.importorskip("onnx")
    import onnx_models as om

    tensors = {name: change(array) for name, array in om.weights("LSTM", 3, 4).items()}
    dtype = str(tensors["W"].dtype)
    model = om.model_of([om.node_of("LSTM", {"X", *tensors}, 4)], tensors, dtype=dtype)
    path.with_suffix(".onnx").write_bytes(model.SerializeToString())
    return lambda: from_onnx(path.with_suffix(".onnx"))


def torch_file(path: Path, change: Any) -> Any:
    torch = pytest.importorskip("torch")
    state = torch.nn.GRU(3, 4).state_dict()
    torch.save({name: torch.from_numpy(change(value.numpy())) for name, value in state.items()}, path.with_suffix(".pt"))
    return lambda: from_file(path.with_suffix(".pt"))


def keras_file(path: Path, change: Any) -> Any:
    pytest.importorskip("h5py")
    import keras_reference as ref

    weights = [change(array) for array in ref.draw("GRU", 3, 4, "two")]
    ref.write(path.with_suffix(".h5"), {"l": ref.named("l/gru_cell", weights)}, keras_version="2.6.0")
    return lambda: from_keras(path.with_suffix(".h5"))


FILES = [onnx_file, torch_file, keras_file]


@pytest.mark.parametrize("make", FILES)
def test_errors_name_the_file(make: Any, tmp_path: Path) -> None:
    call = make(tmp_path / "model", lambda array: array[..., :-1])
    with pytest.raises(ValueError, match=r"model\.\w+: "):
        call()


def test_float16_of_keras(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"model\.h5: float16 weights are not converted"):
        keras_file(tmp_path / "model", lambda array: array.astype(np.float16))()


@pytest.mark.parametrize("make", FILES)
@pytest.mark.parametrize("factor", [4 * TINY, LARGE])
def test_a_strict_caller(make: Any, factor: float, tmp_path: Path) -> None:
    """Weights that underflow or overflow when they are scaled or summed are the same as without np.seterr."""
    call = make(tmp_path / "model", lambda array: array * np.float32(factor))
    plain = call().params
    with np.errstate(all="raise"):
        strict = call().params
    assert all(np.array_equal(array, strict[name], equal_nan=True) for name, array in plain.items())


def test_a_strict_caller_of_computed_weights() -> None:
    onnx = pytest.importorskip("onnx")
    import onnx_models as om

    weights = om.weights("LSTM", 3, 4)
    wide = {"wide": weights["W"].astype("float64") * 1e-300, "R": weights["R"], "B": weights["B"]}
    nodes = [onnx.helper.make_node("Cast", ["wide"], ["W"], to=1), om.node_of("LSTM", {"X", *weights}, 4)]
    with np.errstate(all="raise"):
        assert not from_onnx(om.model_of(nodes, wide)).params["layers.0.W_x"].any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_weights_that_hooks_make(norm: str) -> None:
    """They are made before each call: what stands in the module is what the last call left."""
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn.utils, norm)(torch.nn.GRU(3, 4), "weight_hh_l0")
    with torch.no_grad():
        name = "weight_hh_l0_g" if norm == "weight_norm" else "weight_hh_l0_orig"
        getattr(module, name)[:2] *= 3  # as an optimiser or load_state_dict does
    x = torch.ones(5, 2, 3)
    y = from_torch(module)(x.numpy())[0]
    assert module.training
    wanted = module.eval()(x)[0].detach().numpy()
    assert np.abs(y - wanted).max() < 1e-5


def test_other_hooks_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 4)
    module.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    module.register_forward_hook(lambda module, inputs, outputs: outputs)
    with caplog.at_level(logging.WARNING, "gpurnn"):
        from_torch(module)
    assert "before each call is not converted" in caplog.text
    assert "1 hooks that run after each call" in caplog.text
