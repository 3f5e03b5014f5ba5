"""Layers with proj_size, peepholes, clip and input_forget: against the reference and finite differences of it; the promises
hold for them too. test_options_peers.py has other libraries' results."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import reference_cells
from helpers import (
    GRADIENTS,
    LAYERS,
    OUTPUTS,
    Problem,
    assert_gradients_near,
    assert_near,
    assert_same_bits,
    leaves,
    new_layer,
    row_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import KINDS, OptionProblem, every_dtype, every_kind
from reference import parts
from reference_cells import Options
from test_reference import finite_difference

import gpurnn
from gpurnn_kernels.cpu.programs import blocking
from gpurnn_kernels.cpu.threads import partition as schedule


def check(p: OptionProblem, dtype: str) -> None:
    y, state = p.run()
    assert {a.dtype.name for a in leaves((y, state))} == {dtype}
    assert_near((y, state), p.expected(), OUTPUTS[dtype])
    if p.lengths is not None:
        assert np.all(y[p.past] == 0)


def check_gradients(p: OptionProblem, dtype: str) -> None:
    assert_gradients_near(p.gradients(), p.expected_gradients(), GRADIENTS[dtype])


# Against the reference


@every_kind
@every_dtype
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("lengths", [None, [2, 0, 7, 5, 7, 1]], ids=["full", "ragged"])
def test_layers(kind: str, dtype: str, layer: str, lengths: list[int] | None) -> None:
    p = OptionProblem(kind, 7, 6, 9, 21, dtype=dtype, lengths=lengths, **LAYERS[layer])
    check(p, dtype)
    check_gradients(p, dtype)


@every_kind
@every_dtype
@pytest.mark.parametrize("sizes", [(1, 1, 1, 6), (5, 13, 40, 33), (33, 1, 40, 64), (3, 50, 3, 20), (0, 2, 5, 7), (5, 0, 5, 7)])
def test_sizes(kind: str, dtype: str, sizes: tuple[int, int, int, int]) -> None:
    p = OptionProblem(kind, *sizes, dtype=dtype)
    check(p, dtype)
    check_gradients(p, dtype)


@every_dtype
@pytest.mark.parametrize(("H", "P"), [(2, 1), (40, 16), (40, 39), (130, 64), (130, 65), (300, 129)])
def test_projections(dtype: str, H: int, P: int) -> None:
    for B in (1, 9):
        p = OptionProblem("all", 6, B, 5, H, dtype=dtype, proj_size=P, num_layers=2)
        check(p, dtype)
        check_gradients(p, dtype)


@every_kind
def test_many_blocks_of_rows_and_chunks_of_steps(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What large layers do, at a small size."""
    monkeypatch.setattr(blocking, "ROWS_BYTES", 1)
    monkeypatch.setattr(blocking, "SLOT_BYTES", 1)
    for lengths in (None, [*range(12)] * 5):
        p = OptionProblem(kind, 11, 60, 5, 33, lengths=lengths)
        check(p, "float32")
        check_gradients(p, "float32")


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
    p = OptionProblem("all", T, B, I, H, dtype=dtype, lengths=lengths, **options)
    check(p, dtype)
    check_gradients(p, dtype)


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_stay_in_their_row(kind: str, bad: float) -> None:
    p = OptionProblem(kind, 6, 9, 5, 17)
    clean, _ = p.run()
    p.x[3, 4, 2] = bad
    y, _ = p.run()
    others = np.arange(9) != 4
    assert_same_bits(y[:, others], clean[:, others])
    assert_same_bits(y[:3], clean[:3])
    assert np.isnan(y[3:, 4]).all() == bool(np.isnan(bad))


@pytest.mark.parametrize("kind", ["clip", "proj_size"])
def test_an_infinite_c_goes_as_in_a_plain_layer(kind: str) -> None:
    """No peephole: none of weight zero either, which would make it NaN."""
    p = OptionProblem(kind)
    p.state[1][0, 0, 0] = np.inf
    y, (_, c_n) = p.run()
    assert c_n[0, 0, 0] == np.inf
    assert np.isfinite(y).all()


def test_a_clip_that_clips_nothing() -> None:
    for cell in reference_cells.CELLS:
        p = Problem(cell)
        clipped = new_layer(cell, *p.sizes, clip=1e9)
        clipped.load_params(p.params)
        assert_near(clipped(p.x, p.state), p.layer(p.x, p.state), 1e-6)


def test_coupled_gates_ignore_the_forget_gate() -> None:
    p = OptionProblem("all", bidirectional=True)
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


@every_kind
@pytest.mark.parametrize("layer", [{}, {"num_layers": 2, "bidirectional": True}], ids=["forward", "stacked-both"])
@pytest.mark.parametrize("lengths", [None, [2, 5, 0]], ids=["full", "ragged"])
def test_the_references_gradients(kind: str, layer: dict[str, Any], lengths: list[int] | None) -> None:
    """Against finite differences; no gate's input lies so near the clip that a difference would cross it."""
    p = OptionProblem(kind, 5, 3, 3, 7, dtype="float64", lengths=lengths, **layer)
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
            p = OptionProblem(kind)
            a = p.x @ p.params["layers.0.W_x"].T
            assert 0.05 < np.mean(np.abs(a) > options["clip"]) < 0.95, (kind, cell)


# The promises


@pytest.mark.usefixtures("together")
@every_kind
@every_dtype
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_do_not_depend_on_the_batch(kind: str, dtype: str, threads: int) -> None:
    gpurnn.set_num_threads(threads)
    p = OptionProblem(kind, 4, 65, 19, 41, dtype=dtype)
    y, state = p.run()
    for n in (1, 2, 3, 5, 6, 7, 8, 12, 13, 33, 64):
        for first in (0, 65 - n):
            rows = slice(first, first + n)
            assert_same_bits(p.layer(p.x[:, rows], row_of(p.state, rows)), (y[:, rows], row_of(state, rows)))


def everything(p: Problem) -> Any:
    """The arrays of calls and gradients, from a layer that has not run before."""
    p = copy.deepcopy(p)
    x = p.laid_out(p.x)
    return *p.run(), p.gradients(), *[p.layer(x, None, p.lengths) for _ in range(3)]


@pytest.mark.usefixtures("together")
@every_kind
@every_dtype
@pytest.mark.parametrize("split", ["one", "rows", "units"])
@pytest.mark.parametrize("B", [1, 13])
def test_every_way_to_share_the_work(kind: str, dtype: str, split: str, B: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ("forward", "stacked-reverse", "both"):
        for lengths in (None, [5, 0, 4, 4, 1, 2, 5, 3, 3, 0, 1, 5, 5][:B]):
            wide = {"proj_size": 150} if "proj_size" in KINDS[kind][1] else {}
            p = OptionProblem(kind, 5, B, 13, 200, dtype=dtype, lengths=lengths, **LAYERS[options], **wide)
            gpurnn.set_num_threads(1)
            expected = everything(p)
            with monkeypatch.context() as forced:
                forced.setattr(schedule, "_choose", lambda *_: (split, f"forced: {split}"))
                for threads in (2, 3, 5):
                    gpurnn.set_num_threads(threads)
                    assert f"forced: {split}" in str(p.layer.plan(p.x, lengths))
                    assert_same_bits(everything(p), expected)


@pytest.mark.usefixtures("together")
@every_kind
@pytest.mark.parametrize("B", [1, 5, 26])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_stream_gives_what_a_call_gives(kind: str, B: int, threads: int) -> None:
    gpurnn.set_num_threads(threads)
    p = OptionProblem(kind, 5, B, 13, 70, num_layers=2)
    y, state = p.run()
    stream = p.layer.stream(B, p.state)
    out = np.full_like(y[0], np.nan)
    for t, x_t in enumerate(p.x):
        if t % 2:
            assert stream.step(x_t, out=out) is out
            assert_same_bits(out, y[t])
        else:
            assert_same_bits(stream.step(x_t), y[t])
    assert_same_bits(stream.state, state)
    stream.reset()
    assert all(np.all(s == 0) for s in leaves(stream.state))


# What a user sees


@every_kind
def test_copies_and_files(kind: str, tmp_path: Path) -> None:
    p = OptionProblem(kind, num_layers=2, bidirectional=True)
    expected = p.run()
    p.layer.save(tmp_path / "layer.safetensors")
    for other in (gpurnn.load(tmp_path / "layer.safetensors"), pickle.loads(pickle.dumps(p.layer)), copy.deepcopy(p.layer)):
        assert repr(other) == repr(p.layer)
        assert_same_bits(dict(other.params), dict(p.layer.params))
        p.layer = other
        assert_same_bits(p.run(), expected)


@every_kind
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
