"""precision= inside other libraries."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import gpurnn

torch = pytest.importorskip("torch")
import gpurnn.interop.torch as ours  # noqa: E402

KINDS = ["LSTM", "GRU"]
PRECISIONS = ["bf16", "int8"]


def made(kind: str, precision: str | None) -> tuple[Any, Any]:
    """A module of ours, and x for it."""
    torch.manual_seed(0)
    return getattr(ours, kind)(3, 5, 2, precision=precision, dropout=0.5), torch.randn(7, 4, 3)


def expected(module: Any, x: Any, precision: str | None) -> Any:
    return gpurnn.from_torch(module, precision=precision or "float32")(x.numpy())[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_modules(kind: str, precision: str) -> None:
    module, x = made(kind, precision)
    assert f"precision='{precision}'" in repr(module)
    assert gpurnn.from_torch(module).precision == precision
    module.eval()
    for one in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with torch.no_grad():
            assert_same_bits(one(x)[0].numpy(), expected(module, x, precision))
    with torch.no_grad():
        module.precision = None
        assert_same_bits(module(x)[0].numpy(), expected(module, x, None))


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_float32(kind: str) -> None:
    module, x = made(kind, "int8")
    module.dropout = 0.0
    module.eval()
    with torch.no_grad():
        module(x)
    with pytest.raises(NotImplementedError, match=r"precision 'int8' has no gradients: call .* torch.no_grad\(\)"):
        module(x)
    module.train()
    y, _ = module(x)
    assert_same_bits(y.detach().numpy(), expected(module, x, None))
    y.sum().backward()
    assert module.weight_ih_l0.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_operators(kind: str) -> None:
    """The operator that tracers see of a call has its precision; a call without one is written as before."""
    module, x = made(kind, "int8")
    module.eval()
    with torch.no_grad():
        program = torch.export.export(module, (x,))
        assert_same_bits(program.module()(x)[0].numpy(), expected(module, x, "int8"))
    operator = getattr(torch.ops.gpurnn, kind.lower())
    weights = [one.detach() for one in module._flat_weights]
    sizes = [5, 2, True, False, 0][: 5 if kind == "LSTM" else 4]
    assert_same_bits(operator(x, [], weights, None, *sizes)[0].numpy(), expected(module, x, None))
    for precision in PRECISIONS:
        y = operator(x, [], weights, None, *sizes, precision)[0]
        assert_same_bits(y.numpy(), expected(module, x, precision))
    with pytest.raises(NotImplementedError, match="precision 'int8' has no gradients"):
        operator(x.requires_grad_(), [], weights, None, *sizes, "int8")


def test_replace() -> None:
    model = torch.nn.Sequential(torch.nn.LSTM(3, 5)).eval()
    x = torch.randn(7, 4, 3)
    assert ours.replace(model, precision="bf16")[0].precision == "bf16"
    with torch.no_grad():
        assert_same_bits(model(x)[0].numpy(), expected(model[0], x, "bf16"))
    double = torch.nn.Sequential(torch.nn.GRU(3, 5).double())
    with pytest.raises(ValueError, match="precision 'int8': expected dtype float32 with it, got float64"):
        ours.replace(double, precision="int8")
    assert type(double[0]) is torch.nn.GRU
    with pytest.raises(ValueError, match="precision"):
        ours.LSTM(3, 5, precision="int4")


@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluator(kind: str) -> None:
    pytest.importorskip("onnx")
    import onnx_models as om
    from onnx.reference import ReferenceEvaluator

    from gpurnn.interop.onnx import operators

    model = om.simple(kind)
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    for precision in (None, *PRECISIONS):
        (Y,) = ReferenceEvaluator(model, new_ops=operators(precision)).run(None, {"X": x})
        assert_same_bits(Y[:, 0], gpurnn.from_onnx(model, precision=precision)(x)[0])


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_an_operator_of_integers(direction: str, tmp_path: Path) -> None:
    """ONNX Runtime's, in ONNX's evaluator, which has none."""
    onnx = pytest.importorskip("onnx")
    quantization = pytest.importorskip("onnxruntime.quantization")
    import onnx_models as om
    from onnx.reference import ReferenceEvaluator

    from gpurnn.interop.onnx import operators

    D = 2 if direction == "bidirectional" else 1
    onnx.save(om.simple("LSTM", 3, 4, D, direction=direction), tmp_path / "m.onnx")
    quantization.quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx")
    model = onnx.load(tmp_path / "q.onnx")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    for precision in (None, "float32", *PRECISIONS):
        (Y,) = ReferenceEvaluator(model, new_ops=operators(precision)).run(None, {"X": x})
        wanted = gpurnn.from_onnx(model, precision=precision)(x)[0]
        assert_same_bits(Y.transpose(0, 2, 1, 3).reshape(5, 2, -1), wanted)


def test_dask() -> None:
    da = pytest.importorskip("dask.array")
    from gpurnn.interop.dask import apply

    layer, x = gpurnn.GRU(3, 5, seed=0), np.random.default_rng(0).standard_normal((5, 9, 3)).astype(np.float32)
    y, _ = apply(layer, da.from_array(x, chunks=(-1, 4, -1)), precision="int8")
    assert_same_bits(y.compute(scheduler="synchronous"), layer.with_precision("int8")(x)[0])
