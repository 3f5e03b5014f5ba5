"""Layers as objects: attributes, parameters, repr, copies, and that they compare by identity."""

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LAYERS, Problem, assert_same_bits, leaves, new_layer
from reference import random_params
from reference_cells import CELLS

import gpurnn

every_cell = pytest.mark.parametrize("cell", CELLS)
every_layer = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())


@every_cell
@every_layer
def test_names_and_shapes_of_parameters(cell: str, options: dict[str, Any]) -> None:
    params = new_layer(cell, 3, 5, **options, dtype="float64").params
    wanted = random_params(cell, 3, 5, **{name: value for name, value in options.items() if name != "batch_first"})
    assert list(params) == list(wanted)
    assert {name: a.shape for name, a in params.items()} == {name: a.shape for name, a in wanted.items()}
    assert {a.dtype.name for a in params.values()} == {"float64"}


@every_cell
def test_parameters_are_read_only(cell: str) -> None:
    layer = new_layer(cell, 3, 5)
    name, a = next(iter(layer.params.items()))
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 1
    with pytest.raises(TypeError):
        layer.params[name] = a
    with pytest.raises(AttributeError):
        layer.params = {}


@every_cell
def test_parameters_are_copies(cell: str) -> None:
    p = Problem(cell)
    given = {name: a.copy(order="F") for name, a in p.params.items()}
    layer = new_layer(cell, *p.sizes)
    layer.load_params(given)
    expected = layer(p.x)
    for a in given.values():
        a.fill(9)
    assert_same_bits(layer.params, p.params)
    assert_same_bits(tuple(leaves(layer(p.x))), tuple(leaves(expected)))


@every_cell
def test_new_parameters_are_used(cell: str) -> None:
    p, q = Problem(cell, seed=1), Problem(cell, seed=2)
    expected = q.layer(p.x), q.layer(p.x, p.state), q.layer.stream(3).step(p.x[0])
    for _ in range(3):
        p.layer(p.x)
    p.gradients()
    p.layer.load_params(q.layer.params)
    got = p.layer(p.x), p.layer(p.x, p.state), p.layer.stream(3).step(p.x[0])
    assert_same_bits(tuple(leaves(got)), tuple(leaves(expected)))
    q.x, q.state, q.dy, q.dstate = p.x, p.state, p.dy, p.dstate
    assert_same_bits(p.gradients(), q.gradients())


@every_cell
def test_parameters_are_loaded_all_or_nothing(cell: str) -> None:
    p = Problem(cell, num_layers=2)
    good = {name: a + 1 for name, a in p.params.items()}
    last = list(good)[-1]
    bad: list[tuple[Any, type[Exception], str]] = [
        ({name: a for name, a in good.items() if name != last}, ValueError, f"missing {last}"),
        (good | {"layers.2.W_x": good[last]}, ValueError, r"unknown layers\.2\.W_x"),
        (good | {1: good[last]}, ValueError, "unknown 1"),
        ({}, ValueError, "missing"),
        (good | {last: good[last][1:]}, ValueError, f"{last}: expected shape"),
        (good | {last: good[last][None]}, ValueError, f"{last}: expected shape"),
        (good | {last: good[last].astype(np.float64)}, TypeError, rf"{last}: .*\.astype"),
        (good | {last: good[last].tolist()}, TypeError, f"{last}: .*list"),
        (good | {last: good[last].astype(object)}, TypeError, f"{last}: .*object"),
        (list(good.items()), TypeError, "mapping"),
        (None, TypeError, "mapping"),
    ]
    y, _ = p.layer(p.x)
    for value, error, match in bad:
        with pytest.raises(error, match=match):
            p.layer.load_params(value)
        assert_same_bits(p.layer.params, p.params)
        assert_same_bits(p.layer(p.x)[0], y)


def test_attributes_mirror_the_arguments() -> None:
    lstm = gpurnn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, forget_bias=1, dtype=np.float64)
    found = {name: getattr(lstm, name) for name in ("input_size", "hidden_size", "num_layers", "batch_first", "bidirectional")}
    assert list(found.values()) == [3, 4, 2, True, True]
    assert (lstm.bias, lstm.reverse, lstm.forget_bias, lstm.dtype) == (True, False, 1.0, np.float64)
    assert (lstm.proj_size, lstm.peepholes, lstm.clip, lstm.input_forget) == (0, False, None, False)
    assert (lstm.precision, lstm.fast_math) == (None, False)
    gru = gpurnn.GRU(np.int64(3), 4, bias=np.False_, reverse=True, reset_after=True)  # type: ignore[arg-type]
    assert (gru.bias, gru.reverse, gru.reset_after, gru.clip) == (False, True, True, None)
    assert type(gru.input_size) is int
    assert type(gru.bias) is bool


@every_cell
def test_constructors_and_files_have_the_same_defaults(cell: str) -> None:
    kind = type(new_layer(cell, 3, 4))
    arguments = {one.name: one.default for one in inspect.signature(kind).parameters.values() if one.name != "seed"}
    configuration = kind(3, 4).configuration()
    assert list(configuration) == list(arguments)
    assert {name: value for name, value in configuration.items() if name not in ("input_size", "hidden_size")} == {
        name: value for name, value in arguments.items() if value is not inspect.Parameter.empty
    }
    least = {"input_size": 3, "hidden_size": 4}
    assert kind.with_params(least, kind(3, 4).params).configuration() == configuration


MIRRORS = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional", "reverse", "clip", "dtype")


@every_cell
@pytest.mark.parametrize("called", [False, True])
def test_attributes_that_mirror_arguments_are_read_only(cell: str, called: bool) -> None:
    p = Problem(cell)
    y, _ = p.layer(p.x)
    layer = p.layer if called else new_layer(cell, 4, 7)
    text = repr(layer)
    for name in (*MIRRORS, "precision", "fast_math", "forget_bias" if cell == "lstm" else "reset_after"):
        for change in (lambda name=name: setattr(layer, name, getattr(layer, name)), lambda name=name: delattr(layer, name)):
            with pytest.raises(AttributeError, match=f"{name} is read-only: make a new layer, gpurnn.*load_params"):
                change()
    for name in ("proj_size", "peepholes", "input_forget", "cell", "directions", "output_size", "states", "params"):
        with pytest.raises(AttributeError, match=f"{name} is read-only: "):
            setattr(layer, name, getattr(layer, name))
    with pytest.raises(AttributeError, match="batch_size is read-only: make a new stream"):
        layer.stream(3).batch_size = 2
    assert repr(layer) == text
    if called:
        assert_same_bits(layer(p.x)[0], y)


def test_the_way_that_a_read_only_attribute_names() -> None:
    p = Problem("gru", batch_first=False)
    layer = gpurnn.GRU(**p.layer.configuration() | {"batch_first": True})
    layer.load_params(p.layer.params)
    assert_same_bits(layer(p.x.swapaxes(0, 1).copy())[0].swapaxes(0, 1), p.layer(p.x)[0])


@pytest.mark.parametrize(
    "text",
    [
        "LSTM(3, 4)",
        "GRU(3, 4)",
        "LSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=1.5)",
        "GRU(3, 4, bias=False, batch_first=True, reverse=True, reset_after=True, dtype='float64')",
    ],
)
def test_repr_can_be_evaluated(text: str) -> None:
    assert repr(eval(text, vars(gpurnn))) == text


@every_cell
@every_layer
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "copy"])
def test_copies(cell: str, options: dict[str, Any], how: str) -> None:
    p = Problem(cell, dtype="float64", **options)
    x = p.laid_out(p.x)
    y, _ = p.layer(x)
    if how == "pickle":
        clones = [pickle.loads(pickle.dumps(p.layer, protocol)) for protocol in (2, pickle.HIGHEST_PROTOCOL)]
    else:
        clones = [getattr(copy, how)(p.layer)]
    for clone in clones:
        assert type(clone) is type(p.layer)
        assert repr(clone) == repr(p.layer)
        assert_same_bits(clone.params, p.layer.params)
        assert not any(a.flags.writeable for a in clone.params.values())
        assert_same_bits(clone(x)[0], y)
        clone.load_params({name: a + 1 for name, a in clone.params.items()})
        assert_same_bits(p.layer(x)[0], y)


def test_copies_of_a_forget_bias_do_not_add_it_again() -> None:
    layer = gpurnn.LSTM(3, 4, forget_bias=2.0)
    assert_same_bits(copy.deepcopy(layer).params, layer.params)
    assert copy.deepcopy(layer).forget_bias == 2.0


@every_cell
def test_layers_compare_by_identity(cell: str) -> None:
    a, b = (new_layer(cell, 3, 4, seed=0) for _ in range(2))
    assert a == a
    assert a != b
    assert len({a, b}) == 2


def test_the_first_line_on_gru_tells_of_its_default() -> None:
    first = (gpurnn.GRU.__doc__ or "").splitlines()[0]
    assert "reset_after=True" in first
    assert gpurnn.GRU(3, 4).reset_after is False


class Encoder(gpurnn.GRU):
    """A subclass with arguments of its own, and one of its base's names for another thing."""

    def __init__(self, name: str, bias: float = 0.5) -> None:
        super().__init__(3, 4, reset_after=True, bidirectional=True, seed=0)
        self.name, self.factor = name, bias


def test_subclasses_with_their_own_constructor(tmp_path: Path) -> None:
    layer = Encoder("first")
    assert repr(layer) == "Encoder(3, 4, bidirectional=True, reset_after=True)"
    x = np.ones((5, 2, 3), np.float32)
    assert repr(layer) in str(layer.plan(x))
    y, _ = layer(x)
    clones = [copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    for clone in clones:
        assert type(clone) is Encoder
        assert (clone.name, clone.factor) == ("first", 0.5)
        assert_same_bits(clone(x)[0], y)
    layer.save(tmp_path / "layer")
    loaded = gpurnn.load(tmp_path / "layer")
    assert type(loaded) is gpurnn.GRU
    assert_same_bits(loaded(x)[0], y)


@every_cell
def test_attributes_that_users_set_come_along(cell: str) -> None:
    p = Problem(cell)
    p.layer.name, p.layer._tag = "encoder", ["a"]
    assert p.layer.__getstate__()["attributes"] == {"name": "encoder", "_tag": ["a"]}
    shallow, deep = copy.copy(p.layer), copy.deepcopy(p.layer)
    assert shallow._tag is p.layer._tag
    assert deep._tag is not p.layer._tag
    assert (pickle.loads(pickle.dumps(p.layer)).name, deep._tag) == ("encoder", ["a"])
    del p.layer.name


@every_cell
def test_copies_take_along_nothing_that_calls_have_made(cell: str) -> None:
    p = Problem(cell)
    for _ in range(2):
        p.layer(p.x)
    p.layer(p.x, p.state, [1, 2, 3]), p.gradients(), p.layer.stream(3).step(p.x[0]), p.layer.plan(p.x)
    assert list(p.layer.__getstate__()) == ["configuration", "params"]


@every_cell
def test_parameters_can_be_copied_and_pickled(cell: str) -> None:
    params = new_layer(cell, 3, 4).params
    for made in (copy.copy(params), copy.deepcopy(params), pickle.loads(pickle.dumps(params)), params.copy(), params | {}):
        assert type(made) is dict
        assert_same_bits(made, params)
    assert ({"more": 1} | params)["more"] == 1
    assert all(a.flags.writeable for a in copy.deepcopy(params).values())


@every_cell
def test_a_vjp_is_its_own_copy_and_says_why_it_cannot_be_pickled(cell: str) -> None:
    p = Problem(cell)
    _, vjp = p.layer.vjp(p.x)
    expected = vjp(p.dy)
    for clone in (copy.copy(vjp), copy.deepcopy([vjp])[0]):
        assert_same_bits(clone(p.dy).x, expected.x)
    with pytest.raises(TypeError, match=r"pickle the layer, x, state and lengths, and call layer\.vjp"):
        pickle.dumps(vjp)


def unpickled(dtype: str) -> np.dtype[Any]:
    """A dtype as arrays from another process have it: equal to NumPy's, and another object."""
    found: np.dtype[Any] = pickle.loads(pickle.dumps(np.zeros(1, dtype))).dtype
    assert found is not np.dtype(dtype)
    return found


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_numpys_own(cell: str, dtype: str) -> None:
    layer = new_layer(cell, 3, 4, dtype=unpickled(dtype))
    assert layer.dtype is np.dtype(dtype)
    x = np.zeros((5, 2, 3), dtype)
    for _ in range(2):
        assert layer(x)[0].dtype is np.dtype(dtype)
    out = np.empty((2, 4), dtype)
    assert layer.stream(2).step(x[0], out) is out


@every_cell
def test_what_goes_the_short_way(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that was seen before, of any array that lies as kernels read it: read-only, mapped, or out of a pickle."""
    p = Problem(cell)
    expected = p.layer(p.x)
    p.x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", p.x.dtype, "r", shape=p.x.shape)
    pickled = pickle.loads(pickle.dumps(p.x))
    buffer = np.frombuffer(p.x.tobytes(), p.x.dtype).reshape(p.x.shape)
    state = p.layer.stream(3)
    first = state.step(p.x[0])

    def long_way(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("gpurnn.layers.call.Arguments", long_way)
    monkeypatch.setattr("gpurnn.checks.array", long_way)
    stream = p.layer.stream(3)
    for x in (p.x, mapped, pickled, buffer):
        assert_same_bits(tuple(leaves(p.layer(x))), tuple(leaves(expected)))
        stream.reset()
        assert_same_bits(stream.step(x[0], pickle.loads(pickle.dumps(first))), first)
    with pytest.raises(AssertionError):
        p.layer(p.x[::-1])
