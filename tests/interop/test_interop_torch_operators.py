"""gpurnn.interop.torch under PyTorch's compilers, tracers, exporters, modes and transforms: none may lose a call."""

import gc
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from test_interop_torch import KINDS, Model, near  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

import gpurnn.interop.torch as ours  # noqa: E402
from gpurnn.interop.torch import calls, operators  # noqa: E402

# PyTorch's own, of its tracers and exporters
pytestmark = [pytest.mark.filterwarnings(f"ignore::{one}") for one in ("DeprecationWarning", "FutureWarning", "UserWarning")]
X, OTHER = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(-2, 2, 36).reshape(6, 2, 3)


def pair(kind: str) -> tuple[Any, Any]:
    """A model of PyTorch's, and one of the same weights on gpurnn."""

    def make() -> Any:
        torch.manual_seed(0)
        return Tagger(kind).eval()

    return make(), ours.replace(make())


class Tagger(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        y, _ = self.body(x)
        return self.head(y)


def gradients(model: Any, run: Any) -> tuple[Any, ...]:
    """The gradients of a model's parameters by way of a function that runs it."""
    model.zero_grad()
    (run(OTHER) ** 2).sum().backward()
    return tuple(one.grad for one in model.parameters())


def assert_same(run: Any, mine: Any, theirs: Any) -> None:
    """Compares results for values that the graph was not made with, and for weights that came later; and gradients."""
    with torch.no_grad():
        near(run(OTHER), theirs(OTHER))
        for model in mine, theirs:
            model.body.weight_hh_l0.mul_(1.5)
        near(run(OTHER), theirs(OTHER))
    near(gradients(mine, run), gradients(theirs, theirs))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes that a gpurnn layer was made for, one by one."""
    found: list[Any] = []
    of = calls.Prepared.of.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        calls.Prepared, "of", classmethod(lambda cls, shape, *given: (found.append(shape), of(cls, shape, *given))[1])
    )
    return found


@pytest.fixture
def compile() -> Iterator[Callable[..., Any]]:
    """torch.compile, with a graph that breaks at recurrent modules, or one graph."""
    import torch._dynamo as dynamo

    def start(model: Any, backend: str, whole: bool) -> Any:
        dynamo.config.allow_rnn = whole
        return torch.compile(model, backend=backend, fullgraph=whole)

    dynamo.reset()
    with dynamo.config.patch(allow_rnn=False):
        yield start
    dynamo.reset()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_compile(kind: str, backend: str, whole: bool, compile: Any, made: list[Any]) -> None:
    """Right, and a layer is made once for each set of weights."""
    theirs, mine = pair(kind)
    run = compile(mine, backend, whole)
    near(run(X), theirs(X))
    assert_same(run, mine, theirs)
    assert len(made) == 2


def test_compile_of_a_module_alone(compile: Any) -> None:
    mine = ours.replace(torch.nn.LSTM(3, 4))
    near(compile(mine, "eager", False)(X), mine(X))


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_make_fx(kind: str, pre_dispatch: bool) -> None:
    theirs, mine = pair(kind)
    with torch.no_grad():
        graph = make_fx(mine, pre_dispatch=pre_dispatch)(X)
        near(graph(OTHER), theirs(OTHER))
    assert f"gpurnn.{kind.lower()}.default" in [str(node.target) for node in graph.graph.nodes]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_export(kind: str, strict: bool) -> None:
    theirs, mine = pair(kind)
    program = torch.export.export(mine, (X,), strict=strict).run_decompositions()
    assert f"gpurnn.{kind.lower()}.default" in [str(node.target) for node in program.graph.nodes]
    near(program.module()(OTHER), theirs(OTHER))


@pytest.mark.parametrize("kind", KINDS)
def test_jit_trace(kind: str) -> None:
    theirs, mine = pair(kind)
    assert_same(torch.jit.trace(mine, (X,)), mine, theirs)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(mine.requires_grad_(False), (X,)), file)
    file.seek(0)
    near(torch.jit.load(file)(OTHER), theirs(OTHER))


@pytest.mark.parametrize("kind", KINDS)
def test_jit_script_is_refused(kind: str) -> None:
    _, mine = pair(kind)
    with pytest.raises(NotImplementedError, match=r"torch\.jit\.script has no"):
        torch.jit.script(mine)


@pytest.mark.parametrize("kind", KINDS)
def test_symbolic_trace(kind: str) -> None:
    """They are leaves, like PyTorch's own modules."""
    theirs, mine = pair(kind)
    assert_same(torch.fx.symbolic_trace(mine), mine, theirs)
    with pytest.raises(NotImplementedError, match="leaves"):
        torch.fx.symbolic_trace(mine.body)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_onnx(kind: str, dynamo: bool, frozen: bool, tmp_path: Path) -> None:
    """The operators are those that PyTorch writes for its own modules."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript" if dynamo else "onnx")
    theirs, mine = pair(kind)
    with torch.set_grad_enabled(not frozen):
        torch.onnx.export(mine, (X,), str(tmp_path / "model.onnx"), dynamo=dynamo)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    (y,) = session.run(None, {session.get_inputs()[0].name: OTHER.numpy()})
    near(torch.from_numpy(y), theirs(OTHER))


@pytest.mark.parametrize("kind", KINDS)
def test_operators(kind: str) -> None:
    """PyTorch's own test of an operator: its schema, fake kernel, derivatives and compilation."""
    module = getattr(ours, kind)(3, 4, 2, bidirectional=True)
    operator = getattr(torch.ops.gpurnn, kind.lower())
    widths = [4, 4] if kind == "LSTM" else [4]
    state = [torch.randn(4, 2, width, requires_grad=True) for width in widths]
    sizes = (4, 2, True, True, *([0] if kind == "LSTM" else []))
    weights = [one for row in module.all_weights for one in row]
    for given, lengths in ([], None), (state, torch.tensor([6, 2])):
        torch.library.opcheck(operator.default, (X, given, weights, lengths, *sizes))
        hx = None if not given else tuple(given) if kind == "LSTM" else given[0]
        near(operator(X, given, weights, None, *sizes), module(X, hx))
    with pytest.raises(ValueError, match=r"x: expected shape \(T, B, 3\)"):
        operator(X[..., :2].to("meta"), [], [one.to("meta") for one in weights], None, *sizes)


def test_tensors_without_numbers() -> None:
    theirs, mine = pair("LSTM")
    assert mine.to("meta")(X.to("meta")).shape == theirs(X).shape
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert isinstance(pair("GRU")[1](mode.from_tensor(X)), FakeTensor)


def test_layers_go_with_their_weights() -> None:
    _, mine = pair("LSTM")
    gc.collect()
    before = len(operators._prepared)
    graph = make_fx(mine)(X)
    assert len(operators._prepared) == before + 1
    del mine, graph
    gc.collect()
    assert len(operators._prepared) == before


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind: str) -> None:
    """Inputs and states are cast to the dtype of the weights."""
    theirs, mine = pair(kind)
    state = [torch.randn(4, 2, 4, dtype=torch.bfloat16) for _ in range(2 if kind == "LSTM" else 1)]
    linear = torch.nn.Linear(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        x = linear(X)
        assert x.dtype == torch.bfloat16
        y, _ = mine.body(x, tuple(state) if kind == "LSTM" else state[0])
        assert y.dtype == torch.float32
        mine(x).sum().backward()
    full = [one.float() for one in state]
    near(y, theirs.body(x.float(), tuple(full) if kind == "LSTM" else full[0])[0])
    with pytest.raises(TypeError, match="x: expected float32, got bfloat16"):
        mine(X.bfloat16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes_without_kernels_are_refused(dtype: Any) -> None:
    name = str(dtype).removeprefix("torch.")
    theirs, mine = pair("LSTM")
    refused = pytest.raises(NotImplementedError, match=f"{name} modules do not run on gpurnn.*float32")
    with refused:
        mine.to(dtype)(X.to(dtype))
    with refused:
        ours.replace(theirs.to(dtype))
    with refused, torch.autocast("cpu", torch.bfloat16):
        mine.body(X)
    with refused:
        make_fx(mine)(X.to(dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_functional_call(kind: str) -> None:
    theirs, mine = pair(kind)
    found = []
    for model in theirs, mine:
        given = {name: (2 * one).detach().requires_grad_() for name, one in model.named_parameters()}
        y = torch.func.functional_call(model, given, (X,))
        found.append((y, *torch.autograd.grad(y.sum(), list(given.values()))))
    near(found[1], found[0])


def dual(run: Any) -> Any:
    with torch.autograd.forward_ad.dual_level():
        return run(torch.autograd.forward_ad.make_dual(X, X))


TRANSFORMS = {
    "vmap": lambda run: torch.func.vmap(run)(X[None]),
    "grad": lambda run: torch.func.grad(lambda x: run(x).sum())(X),
    "jvp": lambda run: torch.func.jvp(run, (X,), (X,)),
    "dual": dual,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_refused(name: str) -> None:
    """With a text that names gpurnn; no derivative is lost."""
    _, mine = pair("GRU")
    with pytest.raises(NotImplementedError, match="gpurnn"):
        TRANSFORMS[name](mine)
    program = torch.export.export(mine, (X,)).module()
    with pytest.raises((NotImplementedError, RuntimeError)):
        TRANSFORMS[name](program)


def test_functionalize_is_not() -> None:
    theirs, mine = pair("GRU")
    near(torch.func.functionalize(mine)(X), theirs(X))


def test_no_second_derivatives_of_operators() -> None:
    _, mine = pair("GRU")

    def second(x: Any) -> Any:
        (first,) = torch.autograd.grad(mine(x).pow(2).sum(), x, create_graph=True)
        return torch.autograd.grad(first.sum(), x)

    with pytest.raises(RuntimeError, match="no second derivatives"):
        make_fx(second)(X.clone().requires_grad_())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    theirs, mine = pair("LSTM")
    x = X.clone().requires_grad_()
    found = gradients(mine, lambda given: checkpoint(mine, given + 0 * x, use_reentrant=reentrant))
    near(found, gradients(theirs, theirs))


def test_replicas() -> None:
    """The shallow copies of DataParallel, whose weights are tensors set as attributes."""
    theirs, mine = pair("LSTM")
    replica = mine.body._replicate_for_data_parallel()
    for name, value in theirs.body.named_parameters():
        setattr(replica, name, 2 * value.detach())
    near(mine.body(X), theirs.body(X))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in theirs.body.parameters():
            value.mul_(2)
        near(replica(X), theirs.body(X))


def test_whole_models_are_traced_with_state_and_dropout() -> None:
    model = ours.replace(Model().eval())
    x = torch.randn(2, 6, 3)
    with torch.no_grad():
        graph = make_fx(model)(x)
        near(graph(2 * x), model(2 * x))
