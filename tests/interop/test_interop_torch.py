"""gpurnn.interop.torch against PyTorch's own modules."""

import copy
import io
import logging
import pickle
from typing import Any

import pytest
from conversions import few
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch.nn.utils import prune  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence  # noqa: E402

import gpurnn  # noqa: E402
import gpurnn.interop.torch as ours  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
KINDS = ["LSTM", "GRU"]


def pair(kind: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """PyTorch's module and ours with the same weights."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(*args, **options)
    mine = getattr(ours, kind)(*args, **options)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def flat(result: Any) -> list[Any]:
    """y and the state's tensors."""
    if isinstance(result, PackedSequence):
        return [result.data]
    return [one for part in result for one in flat(part)] if isinstance(result, tuple) else [result]


def near(got: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    for one, other in zip(flat(got), flat(wanted), strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance * max(1, other.abs().max())


@st.composite
def options(draw: Any) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(KINDS))
    found = {name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    found |= {"num_layers": draw(st.integers(1, 3)), "dtype": draw(st.sampled_from([torch.float32, torch.float64]))}
    if kind == "LSTM":
        found["proj_size"] = draw(st.sampled_from([0, 0, 2]))
    return kind, found


@few
@given(options(), st.sampled_from(["batch", "unbatched", "packed", "sorted"]), st.booleans())
def test_forward_and_backward(drawn: tuple[str, dict[str, Any]], shape: str, with_state: bool) -> None:
    kind, chosen = drawn
    theirs, mine = pair(kind, 3, 5, **chosen)
    assert isinstance(mine, type(theirs))
    dtype, rows = chosen["dtype"], chosen["num_layers"] * (1 + chosen["bidirectional"])
    results = []
    for module in theirs, mine:
        torch.manual_seed(1)
        sizes = {"unbatched": (6,), "batch": (4, 6) if chosen["batch_first"] else (6, 4)}.get(shape, (6, 4))
        x = torch.randn(*sizes, 3, dtype=dtype, requires_grad=True)
        batch = () if shape == "unbatched" else (4,)
        widths = [chosen.get("proj_size") or 5, 5][: 2 if kind == "LSTM" else 1]
        state = [torch.randn(rows, *batch, width, dtype=dtype, requires_grad=True) for width in widths]
        hx = (tuple(state) if kind == "LSTM" else state[0]) if with_state else None
        given_x: Any = x
        if shape in ("packed", "sorted"):
            lengths = [2, 6, 1, 4] if shape == "packed" else [6, 4, 2, 1]
            given_x = pack_sequence([x[:count, row] for row, count in enumerate(lengths)], enforce_sorted=shape == "sorted")
        found = flat(module(given_x, hx))
        sum((one * torch.randn_like(one)).sum() for one in found).backward()
        grads = [one.grad for one in (x, *(state if with_state else ()), *module.parameters())]
        results.append((found, grads))
    (wanted, wanted_grads), (got, got_grads) = results
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    near(tuple(got), tuple(wanted), tolerance)
    near(tuple(got_grads), tuple(wanted_grads), 10 * tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}])
def test_gradcheck(kind: str, more: dict[str, Any]) -> None:
    module = getattr(ours, kind)(2, 3, dtype=torch.float64, **more)
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    rows = module.num_layers * (1 + module.bidirectional)
    states = [torch.randn(rows, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2 if kind == "LSTM" else 1)]

    def run(x: Any, *rest: Any) -> Any:
        state = rest[: len(states)]
        return tuple(flat(module(x, tuple(state) if kind == "LSTM" else state[0])))

    assert torch.autograd.gradcheck(run, (x, *states, *module.parameters()))


def test_gradcheck_with_projections() -> None:
    module = ours.LSTM(2, 4, proj_size=2, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: tuple(flat(module(x))), (x, *module.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_keep_their_order(kind: str) -> None:
    theirs, mine = pair(kind, 3, 5, 2, bidirectional=True)
    packed = pack_sequence([torch.randn(count, 3) for count in (2, 5, 1, 5)], enforce_sorted=False)
    (y, state), (wanted, wanted_state) = mine(packed), theirs(packed)
    assert torch.equal(y.batch_sizes, wanted.batch_sizes)
    assert torch.equal(y.unsorted_indices, wanted.unsorted_indices)
    near(pad_packed_sequence(y)[0], pad_packed_sequence(wanted)[0])
    near(state, wanted_state)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers(kind: str, batch_first: bool) -> None:
    """Done, with PyTorch's own random numbers; and only in training."""
    theirs, mine = pair(kind, 3, 5, 3, dropout=0.5, bidirectional=True, batch_first=batch_first)
    x = torch.randn(4, 4, 3)
    results = []
    for module in theirs, mine:
        torch.manual_seed(2)
        results.append(module(x))
    near(results[1], results[0])
    first = mine(x)[0]
    assert not torch.equal(first, mine(x)[0])
    near(mine.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("kind", KINDS)
def test_training(kind: str) -> None:
    """The same losses, step by step, with an optimizer."""
    losses = []
    for module in pair(kind, 2, 8, batch_first=True):
        torch.manual_seed(3)
        head = torch.nn.Linear(8, 1)
        optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=1e-2)
        x, found = torch.randn(8, 6, 2), []
        for _ in range(20):
            loss = torch.nn.functional.mse_loss(head(module(x)[0][:, -1])[:, 0], x.sum(dim=(1, 2)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_change_behind_its_back(kind: str) -> None:
    """By an optimizer, through .data, through NumPy, or replaced: every call sees them as they are."""
    theirs, mine = pair(kind, 3, 5)
    x = torch.randn(4, 2, 3)

    def check() -> None:
        with torch.no_grad():
            near(mine(x), theirs(x))

    check()
    for module in theirs, mine:
        module.weight_hh_l0.data.mul_(2)
    check()
    for module in theirs, mine:
        module.weight_ih_l0.detach().numpy()[0] = 3
    check()
    for module in theirs, mine:
        module.bias_ih_l0 = torch.nn.Parameter(torch.ones_like(module.bias_ih_l0))
    check()
    mine.double()
    theirs.double()
    near(mine(x.double()), theirs(x.double()), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_pickles(kind: str) -> None:
    _, mine = pair(kind, 3, 5, 2, bidirectional=True)
    x = torch.randn(4, 2, 3)
    wanted = mine(x)
    file = io.BytesIO()
    torch.save(mine, file)
    file.seek(0)
    assert type(mine).__module__ == "gpurnn.interop.torch"  # what pickles name
    copies = [copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), torch.load(file, weights_only=False)]
    for one in copies:
        assert type(one) is type(mine)
        for got, other in zip(flat(one(x)), flat(wanted), strict=True):
            assert torch.equal(got, other)


def test_what_real_models_call() -> None:
    theirs, mine = pair("LSTM", 3, 5, 2, bidirectional=True)
    mine.flatten_parameters()
    for row, other in zip(mine.all_weights, theirs.all_weights, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(row, other, strict=True))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert repr(mine) == repr(theirs)
    mine.reset_parameters()


class Model(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.LSTM(3, 4, batch_first=True)
        self.two = torch.nn.Sequential(torch.nn.GRU(4, 5, 2, batch_first=True, dropout=0.3))
        self.same = self.one

    def forward(self, x: Any) -> Any:
        return self.two(self.one(x)[0])[0]


class Own(torch.nn.LSTM):  # type: ignore[misc]
    def forward(self, x: Any, hx: Any = None) -> Any:
        return super().forward(-x, hx)


def test_replace(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = Model().eval()
    model.add_module("own", Own(3, 4))
    parameters, calls = list(model.parameters()), []
    model.one.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 6, 3)
    wanted = model(x)
    with caplog.at_level(logging.INFO, "gpurnn"):
        assert ours.replace(model) is model
    assert "'own' is left alone: Own is a subclass of torch.nn.LSTM" in caplog.text
    assert [one.args[0] for one in caplog.records if one.levelname == "INFO"] == ["one", "two.0"]
    assert type(model.one) is ours.LSTM
    assert type(model.two[0]) is ours.GRU
    assert type(model.own) is Own
    assert model.same is model.one
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    near(model(x), wanted)
    assert len(calls) == 2
    assert type(ours.replace(torch.nn.GRU(2, 3))) is ours.GRU  # itself included
    ours.replace(model)  # twice is once


def test_replace_is_all_or_nothing() -> None:
    model = torch.nn.ModuleList([torch.nn.LSTM(2, 3), torch.nn.LSTM(2, 3).half()])
    with pytest.raises(NotImplementedError, match="float16"):
        ours.replace(model)
    assert type(model[0]) is torch.nn.LSTM
    with pytest.raises(NotImplementedError, match="float16"):
        ours.LSTM(2, 3, dtype=torch.float16)


# spectral_norm: as many iterations as let it converge, since PyTorch's module asks more often than once a call
NORMS = {
    "weight_norm": lambda module: torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0"),
    "orthogonal": lambda module: torch.nn.utils.parametrizations.orthogonal(module, "weight_hh_l0"),
    "spectral_norm": lambda module: torch.nn.utils.parametrizations.spectral_norm(module, "weight_hh_l0", 50),
    "weight_norm by hooks": lambda module: torch.nn.utils.weight_norm(module, "weight_hh_l0"),
    "spectral_norm by hooks": lambda module: torch.nn.utils.spectral_norm(module, "weight_hh_l0"),
    "pruned": lambda module: prune.random_unstructured(module, "weight_hh_l0", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_parametrized_weights(kind: str, norm: str, late: bool) -> None:
    """Computed from others at every call, whether that was asked for before or after the replacement."""
    modules = []
    for replaced in False, True:
        torch.manual_seed(4)
        module = getattr(torch.nn, kind)(3, 5)
        if replaced and late:
            ours.replace(module)
        NORMS[norm](module)
        modules.append(ours.replace(module) if replaced else module)
    theirs, mine = modules
    assert isinstance(mine, getattr(ours, kind))
    x = torch.randn(4, 2, 3)
    for _ in range(2):
        results = []
        for module in modules:
            module.zero_grad()
            y = module(x)[0]
            y.pow(2).sum().backward()
            results.append((y, *(one.grad for one in module.parameters())))
            torch.optim.SGD(module.parameters(), lr=0.1).step()
        near(results[1], results[0], 1e-4)
    if torch.nn.utils.parametrize.is_parametrized(mine):
        near(copy.deepcopy(mine.eval())(x), theirs.eval()(x), 1e-4)
        near(torch.from_numpy(gpurnn.from_torch(mine)(x.numpy())[0]), theirs(x)[0], 1e-4)
        torch.nn.utils.parametrize.remove_parametrizations(mine, "weight_hh_l0")
        assert type(mine) is getattr(ours, kind)
        near(mine(x), theirs(x), 1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
def test_replace_says_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    projected, mode = torch.nn.LSTM(2, 4, proj_size=2, device="meta"), FakeTensorMode()
    for name, value in list(projected.named_parameters()):
        on_gpu = FakeTensor(mode, value.detach(), torch.device("cuda"))
        setattr(projected, name, torch.nn.Parameter(on_gpu))
    left = {
        "rnn": (torch.nn.RNN(2, 3), "no module for torch.nn.RNN"),
        "cell": (torch.nn.LSTMCell(2, 3), "no module for torch.nn.LSTMCell"),
        "scripted": (torch.jit.script(torch.nn.GRU(2, 3)), "TorchScript, of GRU"),
        "projected": (projected, "projections are not built on CUDA"),
        "quantised": (torch.ao.nn.quantized.dynamic.LSTM(2, 3), "no plain torch.nn layer"),
    }
    model = torch.nn.ModuleDict({name: module for name, (module, _) in left.items()})
    kinds = {name: type(module) for name, module in model.items()}
    ours.replace(model)
    assert {name: type(module) for name, module in model.items()} == kinds
    told = {one.args[0]: one.getMessage() for one in caplog.records if "left alone" in one.msg}
    assert set(told) == set(left)
    for name, (_, reason) in left.items():
        assert reason in told[name]
    assert "nothing in ModuleDict runs on gpurnn" in caplog.text


def test_errors() -> None:
    mine = ours.LSTM(3, 5)
    with pytest.raises(ValueError, match="dimensions"):
        mine(torch.zeros(3))
    with pytest.raises(ValueError, match="hx: expected 3 dimensions"):
        mine(torch.zeros(2, 4, 3), (torch.zeros(1, 5), torch.zeros(1, 5)))
    with pytest.raises(ValueError, match="x: expected shape"):
        mine(torch.zeros(2, 4, 2))
    with pytest.raises(TypeError, match="x: expected float32, got float64"):
        mine(torch.zeros(2, 4, 3, dtype=torch.float64))


def test_no_second_derivatives() -> None:
    mine = ours.GRU(3, 5)
    x = torch.randn(2, 4, 3, requires_grad=True)
    for loss in mine(x)[0].sum(), (mine(x)[0] ** 2).sum():
        with pytest.raises(RuntimeError, match="no second derivatives"):
            torch.autograd.grad(loss, x, create_graph=True)


def test_without_gradients_nothing_is_kept() -> None:
    mine = ours.LSTM(3, 5)
    with torch.no_grad():
        y, _ = mine(torch.randn(2, 4, 3))
    assert y.grad_fn is None
    frozen = ours.LSTM(3, 5).requires_grad_(False)
    assert not frozen(torch.randn(2, 4, 3))[0].requires_grad


def test_inputs_of_any_layout() -> None:
    theirs, mine = pair("GRU", 3, 5)
    wide = torch.randn(6, 4, 9)
    for x in wide[..., ::3], wide[::2, :, :3], wide[:, :, 3:6].transpose(0, 1), wide[:1, :, :3].expand(5, 4, 3):
        near(mine(x), theirs(x))
