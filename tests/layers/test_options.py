"""Layers with proj_size, peepholes, clip and input_forget, beyond their rows in the tables of the other tests."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from helpers import (
    GRADIENTS,
    KINDS,
    LAYERS,
    OUTPUTS,
    Problem,
    assert_gradients_near,
    assert_near,
    assert_same_bits,
    new_layer,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import every_dtype, every_option
from reference import parts
from reference_cells import CELLS, Options
from test_reference import finite_difference

import gpurnn


def check(p: Problem, dtype: str) -> None:
    y, state = p.run()
    assert_near((y, state), p.expected(), OUTPUTS[dtype])
    if p.lengths is not None:
        assert np.all(y[p.past] == 0)
    assert_gradients_near(p.gradients(), p.expected_gradients(), GRADIENTS[dtype])


# Against the reference


@every_dtype
@pytest.mark.parametrize(("H", "P"), [(2, 1), (40, 16), (40, 39), (130, 64), (130, 65), (300, 129)])
def test_projections(dtype: str, H: int, P: int) -> None:
    for B in (1, 9):
        p = Problem("all", 6, B, 5, H, dtype=dtype, proj_size=P, num_layers=2)
        check(p, dtype)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_combination(data: st.DataObject) -> None:
    T, B = (data.draw(st.integers(0, 7)) for _ in range(2))
    I, H = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    options = {
        "peepholes": data.draw(st.booleans()),
        "input_forget": data.draw(st.booleans()),
        "clip": data.draw(st.none() | st.floats(0.1, 2)),
        "proj_size": data.draw(st.integers(0, H - 1)),
        **LAYERS[data.draw(st.sampled_from(sorted(LAYERS)))],
    }
    dtype = data.draw(st.sampled_from(sorted(OUTPUTS)))
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    p = Problem("all", T, B, I, H, dtype=dtype, lengths=lengths, **options)
    check(p, dtype)


@pytest.mark.parametrize("kind", ["clip", "proj_size"])
def test_an_infinite_c_goes_as_in_a_plain_layer(kind: str) -> None:
    """No peephole: none of weight zero either, which would make it NaN."""
    p = Problem(kind)
    p.state[1][0, 0, 0] = np.inf
    y, (_, c_n) = p.run()
    assert c_n[0, 0, 0] == np.inf
    assert np.isfinite(y).all()


def test_a_clip_that_clips_nothing() -> None:
    for cell in CELLS:
        p = Problem(cell)
        clipped = new_layer(cell, *p.sizes, clip=1e9)
        clipped.load_params(p.params)
        assert_near(clipped(p.x, p.state), p.layer(p.x, p.state), 1e-6)


def test_coupled_gates_ignore_the_forget_gate() -> None:
    p = Problem("all", bidirectional=True)
    expected, grads = p.run(), p.gradients()
    H = p.sizes[1]
    for name, a in p.params.items():
        if not name.endswith("W_p"):
            assert np.all(grads[name][:H] == 0)
            a[:H] = 7
    p.layer.load_params(p.params)
    assert_same_bits(p.run(), expected)
    assert_same_bits(p.gradients(), grads)


# The reference itself


ALONE = [(kind, "forward") for kind in KINDS if kind not in CELLS]


@pytest.mark.parametrize(("kind", "options"), [*ALONE, ("all", "stacked-both"), ("gru clip", "stacked-both")])
@pytest.mark.parametrize("lengths", [None, [2, 4, 0]], ids=["full", "ragged"])
def test_the_references_gradients(kind: str, options: str, lengths: list[int] | None) -> None:
    """Against finite differences; no gate's input lies so near the clip that a difference would cross it."""
    layer = {**LAYERS[options], "num_layers": 2} if options == "stacked-both" else {}
    p = Problem(kind, 4, 3, 2, 6, dtype="float64", lengths=lengths, **layer)
    x, dy = (np.nan_to_num(a) for a in (p.x, p.dy))

    def loss() -> float:
        y, last = reference.forward(p.cell, p.params, x, p.state, lengths, **p.options)
        return float(np.sum(dy * y) + sum(np.sum(d * s) for d, s in zip(parts(p.dstate), parts(last), strict=True)))

    grads = reference.gradients(p.cell, p.params, x, dy, p.dstate, p.state, lengths, **p.options)
    inputs = [x, *parts(p.state), *p.params.values()]
    analytic = [grads.x, *parts(grads.state), *grads.params.values()]
    largest = max(float(np.linalg.norm(a)) for a in analytic)
    for name, a, grad in zip(
        ["x", "h_0", "c_0"][: len(inputs) - len(p.params)] + list(p.params), inputs, analytic, strict=True
    ):
        expected = finite_difference(loss, a, 1e-6)
        assert np.linalg.norm(grad - expected) <= 1e-7 * largest, name


def test_the_clip_is_met_on_both_sides() -> None:
    """In the problems above some gates are clipped and some are not."""
    for kind, (cell, options) in KINDS.items():
        if "clip" in options:
            p = Problem(kind)
            a = p.x @ p.params["layers.0.W_x"].T
            assert 0.05 < np.mean(np.abs(a) > options["clip"]) < 0.95, (kind, cell)


# What a user sees


@every_option
def test_copies_and_files(kind: str, tmp_path: Path) -> None:
    p = Problem(kind, num_layers=2, bidirectional=True)
    expected = p.run()
    p.layer.save(tmp_path / "layer.safetensors")
    for other in (gpurnn.load(tmp_path / "layer.safetensors"), pickle.loads(pickle.dumps(p.layer)), copy.deepcopy(p.layer)):
        assert repr(other) == repr(p.layer)
        assert_same_bits(dict(other.params), dict(p.layer.params))
        p.layer = other
        assert_same_bits(p.run(), expected)


@every_option
def test_attributes_repr_and_plan(kind: str) -> None:
    cell, options = KINDS[kind]
    layer = new_layer(cell, 3, 9, **options)
    for name, value in options.items():
        assert getattr(layer, name) == value
        assert f"{name}={value}" in repr(layer)
    names = {"lstm": "lstm_options_forward", "gru": "gru_before_clip_forward", "gru_after": "gru_after_clip_forward"}
    plain = kind == "input_forget"  # the plain kernels, on parameters that say f = 1 - i
    assert ("lstm_forward" if plain else names[cell]) in str(layer.plan(np.zeros((4, 2, 3), np.float32)))


def test_shapes() -> None:
    lstm = gpurnn.LSTM(3, 9, 2, proj_size=4, peepholes=True, bidirectional=True)
    shapes = {name: a.shape for name, a in lstm.params.items() if name.startswith("layers.1.reverse")}
    assert shapes == {
        "layers.1.reverse.W_x": (36, 8),
        "layers.1.reverse.W_h": (36, 4),
        "layers.1.reverse.b": (36,),
        "layers.1.reverse.W_p": (4, 9),
        "layers.1.reverse.peephole": (27,),
    }
    x = np.zeros((5, 2, 3), np.float32)
    y, (h, c) = lstm(x)
    assert (y.shape, h.shape, c.shape) == ((5, 2, 8), (4, 2, 4), (4, 2, 9))
    with pytest.raises(ValueError, match=r"state's h: expected shape \(L\*D, B, P\) = \(4, 2, 4\), got \(4, 2, 9\)"):
        lstm(x, (c, c))
    with pytest.raises(ValueError, match=r"dy: expected shape \(T, B, D\*P\) = \(5, 2, 8\)"):
        lstm.vjp(x)[1](np.zeros((5, 2, 18), np.float32))
    stream = gpurnn.LSTM(3, 9, proj_size=4).stream(2)
    assert stream.step(x[0]).shape == (2, 4)
    with pytest.raises(ValueError, match=r"out: expected shape \(B, P\) = \(2, 4\)"):
        stream.step(x[0], out=np.zeros((2, 9), np.float32))


BAD: dict[str, list[tuple[Any, type[Exception]]]] = {
    "proj_size": [(9, ValueError), (10, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), (None, TypeError)],
    "peepholes": [(1, TypeError), (None, TypeError)],
    "input_forget": [(1, TypeError), ("yes", TypeError)],
    "clip": [
        (0, ValueError),
        (-1.0, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str) -> None:
    for value, error in BAD[name]:
        with pytest.raises(error, match=name):
            gpurnn.LSTM(3, 9, **{name: value})
        with pytest.raises(error if name == "clip" else TypeError, match=name):
            gpurnn.GRU(3, 9, **{name: value})
    with pytest.raises(ValueError, match="forget_bias"):
        gpurnn.LSTM(3, 9, input_forget=True, forget_bias=1.0)


def test_the_reference_takes_no_option_that_a_gru_lacks() -> None:
    with pytest.raises(AssertionError):
        Options(peepholes=True).applied("gru")
