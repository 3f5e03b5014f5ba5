"""from_torch and to_torch against PyTorch."""

import logging
from typing import Any

import numpy as np
import pytest
from conversions import dtypes, few, near, refused, sizes
from helpers import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

import gpurnn
from gpurnn.convert import from_torch

torch = pytest.importorskip("torch")


@st.composite
def modules(draw: Any, kinds: Any = (torch.nn.LSTM, torch.nn.GRU), **fixed: Any) -> Any:
    kind = draw(st.sampled_from(kinds))
    options = {"num_layers": draw(st.integers(1, 3)), "dtype": getattr(torch, draw(dtypes))}
    options |= {name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    torch.manual_seed(draw(st.integers(0, 99)))
    module = kind(draw(sizes), 1 + draw(sizes), **options, **fixed)
    scale = draw(st.sampled_from([0.5, 1, 3]))
    with torch.no_grad():
        for weight in module.parameters():
            weight.uniform_(-scale, scale)
    return module


def compare(layer: Any, module: Any, steps: int = 5, batch: int = 3) -> None:
    """The whole result of both, from a random state."""
    shape = (batch, steps) if module.batch_first else (steps, batch)
    x = torch.randn(*shape, module.input_size, dtype=module.weight_ih_l0.dtype)
    rows = (module.num_layers * (2 if module.bidirectional else 1), batch)
    h = torch.randn(*rows, module.proj_size or module.hidden_size, dtype=x.dtype)
    c = torch.randn(*rows, module.hidden_size, dtype=x.dtype)
    lstm = isinstance(module, torch.nn.LSTM)
    with torch.no_grad():
        y, final = module(x, (h, c) if lstm else h)
    got, got_final = layer(x.numpy(), (h.numpy(), c.numpy()) if lstm else h.numpy())
    dtype = layer.dtype.name
    near(got, y, dtype)
    for one, wanted in zip(got_final if lstm else [got_final], final if lstm else [final], strict=True):
        near(one, wanted, dtype)


@few
@given(modules(), st.integers(1, 6), st.integers(1, 4))
def test_modules(module: Any, steps: int, batch: int) -> None:
    layer = from_torch(module)
    assert layer.batch_first == module.batch_first
    compare(layer, module, steps, batch)


@few
@given(modules(), st.sampled_from(["", "encoder.lstm.", "0."]), st.booleans())
def test_state_dicts(module: Any, prefix: str, arrays: bool) -> None:
    state = {prefix + name: value.numpy() if arrays else value for name, value in module.state_dict().items()}
    if prefix:
        state["decoder.weight"] = np.ones((3, 3), np.float32)
    module.batch_first = False  # a state dict does not know
    compare(from_torch(state, prefix=prefix), module)
    compare(from_torch(state), module)  # the only one needs no name
    compare(from_torch(state, prefix=prefix.rstrip(".")), module)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_cells(kind: str, bias: bool) -> None:
    cell = getattr(torch.nn, kind)(4, 6, bias=bias)
    x, h, c = torch.randn(3, 4), torch.randn(3, 6), torch.randn(3, 6)
    with torch.no_grad():
        wanted = cell(x, (h, c)) if kind == "LSTMCell" else (cell(x, h),)
    for source in cell, cell.state_dict(), {"a.b." + name: value for name, value in cell.state_dict().items()}:
        layer = from_torch(source)
        state = (h[None].numpy(), c[None].numpy()) if kind == "LSTMCell" else h[None].numpy()
        _, final = layer(x[None].numpy(), state)
        for one, other in zip(final if kind == "LSTMCell" else [final], wanted, strict=True):
            near(one[0], other, "float32")


@few
@given(modules())
def test_round_trips(module: Any) -> None:
    layer = from_torch(module)
    back = layer.to_torch()
    assert type(back) is type(module)
    assert (back.batch_first, back.bias, back.bidirectional) == (module.batch_first, module.bias, module.bidirectional)
    compare(layer, back)
    assert_same_bits(from_torch(back).params, layer.params)
    for name, value in module.state_dict().items():
        if name.startswith("weight"):
            assert torch.equal(back.state_dict()[name], value)


def test_a_layer_of_ours_goes_there_and_back() -> None:
    for layer in gpurnn.LSTM(3, 5, 2, bidirectional=True, seed=1), gpurnn.GRU(3, 5, reset_after=True, batch_first=True):
        module = layer.to_torch()
        compare(layer, module)
        assert_same_bits(from_torch(module).params, layer.params)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@few
@given(modules(kinds=[torch.nn.LSTM], proj_size=1))
def test_proj_size(module: Any) -> None:
    for source in module, module.state_dict():
        layer = from_torch(source)
        assert layer.params["layers.0.W_p"].shape == (1, module.hidden_size)
    layer = from_torch(module)
    compare(layer, module)
    back = layer.to_torch()
    compare(layer, back)
    assert_same_bits(from_torch(back).params, layer.params)


def test_dropout_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    module = torch.nn.GRU(3, 4, 2, dropout=0.5)
    with caplog.at_level(logging.INFO, "gpurnn"):
        layer = from_torch(module)
    assert "dropout 0.5" in caplog.text
    compare(layer, module.eval())


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("scale", [1e-3, 10, 1000])
def test_the_self_check_lets_large_weights_pass(kind: str, scale: float) -> None:
    """Though rounding alone makes their outputs part within a few steps."""
    module = getattr(torch.nn, kind)(30, 100, 3, bidirectional=True)
    with torch.no_grad():
        for weight in module.parameters():
            weight.uniform_(-scale, scale)
    from_torch(module)


def test_weight_norm_counts() -> None:
    module = torch.nn.LSTM(3, 4)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    compare(from_torch(module), module)


def test_models_with_layers_inside() -> None:
    model = torch.nn.ModuleDict({"one": torch.nn.LSTM(2, 3), "two": torch.nn.GRU(3, 4)})
    compare(from_torch(model, prefix="two."), model["two"])
    with pytest.raises(ValueError, match=r"2 recurrent layers.*'one' \(LSTM 2 -> 3\); 'two' \(GRU 3 -> 4\)"):
        from_torch(model)
    with pytest.raises(ValueError, match=r"2 recurrent layers.*'one.'.*'two.'"):
        from_torch(model.state_dict())
    compare(from_torch(model.state_dict(), prefix="one"), model["one"])


def test_the_global_generator_stays_as_it_is() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    from_torch({name: value for name, value in torch.nn.LSTM(3, 4).state_dict().items() if torch.manual_seed(5)})
    assert torch.equal(torch.random.get_rng_state(), before)


class _Own(torch.nn.LSTM):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return super().forward(2 * x)


def weights(rows: int, columns: int = 4) -> dict[str, Any]:
    return {"weight_ih_l0": np.ones((rows, 3), np.float32), "weight_hh_l0": np.ones((rows, columns), np.float32)}


REFUSED = {
    "rnn": (lambda: torch.nn.RNN(2, 3), "no torch.nn.LSTM", ValueError),
    "rnn-state": (lambda: torch.nn.RNN(2, 3).state_dict(), "torch.nn.RNN", ValueError),
    "own-forward": (lambda: _Own(2, 3), "no torch.nn.LSTM", ValueError),
    "number": (lambda: 3, "got int", TypeError),
    "empty": (dict, "no LSTM or GRU", ValueError),
    "more": (lambda: weights(16) | {"scale": np.ones(3)}, "'scale' besides", ValueError),
    "one-bias": (lambda: weights(16) | {"bias_ih_l0": np.ones(16, np.float32)}, "bias_hh_l0", ValueError),
    "short": (lambda: weights(15), "15 rows of gates over 4 units", ValueError),
    "sizes": (lambda: weights(16) | {"weight_ih_l0": np.ones((12, 3), np.float32)}, r"expected shape \(16, 3\)", ValueError),
    "far-layer": (lambda: weights(16) | {"weight_ih_l999999999": np.ones(1)}, "only 3 weights", ValueError),
    "integers": (lambda: {name: one.astype(int) for name, one in weights(16).items()}, "floating-point", TypeError),
    "lists": (lambda: weights(16) | {"weight_ih_l0": [[1.0]]}, "got list", TypeError),
    "mixed": (lambda: weights(16) | {"weight_ih_l0": np.ones((16, 3))}, "one dtype", ValueError),
}


@pytest.mark.parametrize(("make", "match", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(make: Any, match: str, error: type[Exception]) -> None:
    refused(lambda: from_torch(make()), match, error)


def test_to_torch_refuses_what_pytorch_has_not() -> None:
    with pytest.raises(ValueError, match="reset_after=False"):
        gpurnn.GRU(3, 4).to_torch()
    with pytest.raises(ValueError, match="reverse"):
        gpurnn.LSTM(3, 4, reverse=True).to_torch()


def test_arrays_need_no_torch() -> None:
    from helpers import python

    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from gpurnn.convert import from_torch
print(from_torch({"weight_ih_l0": np.ones((12, 3)), "weight_hh_l0": np.ones((12, 4))}))
"""
    assert "GRU(3, 4, bias=False, reset_after=True, dtype='float64')" in python(code)
