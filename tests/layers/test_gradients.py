"""Gradients, against the reference and against finite differences of the layers themselves."""

from typing import Any

import numpy as np
import pytest
from helpers import (
    BACKENDS,
    GRADIENTS,
    LAYERS,
    Backend,
    Problem,
    assert_gradients_near,
    assert_same_bits,
    leaves,
    named,
    not_emulated,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import every_cell, every_kind, every_option_of_layers, every_size, everywhere, six_rows, small_problems
from reference import packed, parts
from reference_cells import CELLS

import gpurnn

every_dtype = pytest.mark.parametrize("dtype", GRADIENTS)


def check(p: Problem, backend: Backend, dtype: str) -> None:
    grads = p.gradients(backend)
    assert {a.dtype.name for a in grads.values()} == {dtype}
    assert_gradients_near(grads, p.expected_gradients(), GRADIENTS[dtype])
    if p.lengths is not None:
        assert np.all(grads["x"][p.past] == 0)


@every_size
@every_dtype
def test_sizes(kind: str, dtype: str, sizes: tuple[int, int, int, int], backend: Backend) -> None:
    check(Problem(kind, *sizes, dtype=dtype), backend, dtype)


@everywhere
@every_dtype
@every_option_of_layers
def test_options(kind: str, dtype: str, options: dict[str, bool], lengths: list[int] | None, backend: Backend) -> None:
    check(six_rows(kind, dtype, options, lengths, backend), backend, dtype)


@every_cell
@pytest.mark.parametrize("sizes", [(64, 7, 130, 150), (9, 5, 600, 40)], ids=str)
def test_long_and_wide(cell: str, sizes: tuple[int, int, int, int], backend: Backend) -> None:
    """More rows than a packed panel of them holds, more columns than a panel is wide, more panels than are packed at once."""
    not_emulated(backend)
    check(Problem(cell, *sizes), backend, "float32")


@every_cell
@every_dtype
@pytest.mark.parametrize("options", ["forward", "both"])
@pytest.mark.parametrize("lengths", [None, [2, 5, 0]], ids=["full", "ragged"])
def test_what_goes_past_the_caches(
    cell: str, dtype: str, options: str, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streaming stores save the same values, at sizes that leave vectors partly filled."""
    from gpurnn_kernels.cpu.programs import blocking

    p = Problem(cell, 5, 3, 7, 85, dtype=dtype, lengths=lengths, **LAYERS[options])
    near = p.gradients(BACKENDS["cpu"])
    monkeypatch.setattr(blocking, "STREAMING_BYTES", 0)
    assert_same_bits(p.gradients(BACKENDS["cpu"]), near)


@every_kind
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.usefixtures("small_blocks")
def test_many_blocks_of_rows_and_chunks_of_steps(kind: str, direction: str) -> None:
    for lengths in (None, [*range(12)] * 5):
        check(Problem(kind, 11, 60, 5, 33, lengths=lengths, **LAYERS[direction]), BACKENDS["cpu"], "float32")


@every_cell
@settings(max_examples=20, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_small_problem(cell: str, data: st.DataObject) -> None:
    p = data.draw(small_problems(cell, GRADIENTS))
    check(p, BACKENDS["cpu"], p.x.dtype.name)


@every_cell
@pytest.mark.parametrize("options", ["forward", "stacked-reverse", "both"])
@pytest.mark.parametrize("lengths", [None, [2, 4, 0]], ids=["full", "ragged"])
def test_finite_differences(cell: str, options: str, lengths: list[int] | None) -> None:
    p = Problem(cell, 4, 3, 2, 3, dtype="float64", lengths=lengths, **LAYERS[options])
    used = np.where(np.isnan(p.dy), 0, p.dy)

    def loss() -> float:
        p.layer.load_params(p.params)
        y, last = p.run()
        return float(np.sum(used * y) + sum(np.sum(d * s) for d, s in zip(parts(p.dstate), parts(last), strict=True)))

    grads = p.gradients()
    inputs = {"x": p.x, **dict(zip(("h_0", "c_0"), parts(p.state), strict=False)), **p.params}
    assert list(inputs) == list(grads)
    for name, a in inputs.items():
        expected = np.zeros_like(a)
        for k in np.ndindex(a.shape):
            value = a[k]
            a[k] = value + 1e-5
            up = loss()
            a[k] = value - 1e-5
            expected[k] = (up - loss()) / 2e-5
            a[k] = value
        assert np.linalg.norm(grads[name] - expected) <= 1e-7 * np.linalg.norm(expected), name


@every_cell
@pytest.mark.parametrize("options", ["forward", "stacked-both", "batch-first"])
@pytest.mark.parametrize("lengths", [None, [2, 5, 0]], ids=["full", "ragged"])
def test_out_is_what_a_call_gives(cell: str, options: str, lengths: list[int] | None) -> None:
    p = Problem(cell, lengths=lengths, **LAYERS[options])
    out, _ = p.layer.vjp(p.laid_out(p.x), p.state, lengths)
    assert_same_bits(out, p.layer(p.laid_out(p.x), p.state, lengths))


@every_cell
@pytest.mark.parametrize("options", ["forward", "stacked-both"])
def test_absent_arguments_are_zeros(cell: str, options: str) -> None:
    p = Problem(cell, **LAYERS[options])
    zeros = packed([np.zeros_like(s) for s in parts(p.state)])
    _, vjp = p.layer.vjp(p.x)
    _, vjp_zeros = p.layer.vjp(p.x, zeros, [5, 5, 5])
    assert_same_bits(named(vjp(p.dy)), named(vjp_zeros(p.dy, zeros)))
    assert_same_bits(named(vjp(None, p.dstate)), named(vjp_zeros(np.zeros_like(p.dy), p.dstate)))
    assert all(np.all(a == 0) for a in named(vjp(None)).values())


@every_cell
@pytest.mark.parametrize("options", ["forward", "stacked-both", "batch-first"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_calls_do_not_disturb_each_other(cell: str, options: str, ragged: bool) -> None:
    """Gradients are those of the call, whatever happens to the layer and to the arrays in the meantime."""
    p = Problem(cell, lengths=[2, 5, 0] if ragged else None, **LAYERS[options])
    x, state, dy = p.laid_out(p.x).copy(), packed([s.copy() for s in parts(p.state)]), p.laid_out(p.dy).copy()
    lengths = np.array(p.lengths) if ragged else None
    (y, last), vjp = p.layer.vjp(x, state, lengths)
    first = named(vjp(dy, p.dstate))
    kept = {name: a.copy() for name, a in first.items()}
    for a in (x, y, *leaves(state), *leaves(last)):
        a.fill(9)
    if lengths is not None:
        lengths.fill(3)
    p.layer.load_params({name: np.zeros_like(a) for name, a in p.params.items()})
    p.run()
    half = named(vjp(dy / 2, packed([d / 2 for d in parts(p.dstate)])))
    again = named(vjp(dy, p.dstate))
    assert_same_bits(again, kept)
    assert_same_bits(first, kept)
    assert_same_bits({name: 2 * a for name, a in half.items()}, kept)


@every_cell
def test_memory_of_calls_that_are_over(cell: str) -> None:
    """Other calls use it again, but not while a call's gradients can still be asked for."""
    p = Problem(cell, num_layers=2)
    _, vjp = p.layer.vjp(p.x, p.state)
    expected = named(vjp(p.dy, p.dstate))
    for _ in range(3):
        _, other = p.layer.vjp(-p.x)
        other(p.dy)
        del other
    assert_same_bits(named(vjp(p.dy, p.dstate)), expected)


@every_cell
def test_what_is_given_back(cell: str) -> None:
    p = Problem(cell, 6, 1, 5, 9)
    _, vjp = p.layer.vjp(p.x[:, 0], packed([s[:, 0] for s in parts(p.state)]), 4)
    grads = vjp(p.dy[:, 0], packed([s[:, 0] for s in parts(p.dstate)]))
    p.lengths = [4]
    p.past = np.arange(6)[:, None] >= 4
    batched = p.gradients()
    assert type(grads).__name__ == "Gradients"
    assert grads._fields == ("x", "state", "params")
    assert list(grads.params) == list(p.layer.params)
    assert_same_bits(grads.x, batched["x"][:, 0])
    assert_same_bits(parts(grads.state)[0], batched["h_0"][:, 0])
    assert_same_bits(dict(grads.params), {name: batched[name] for name in grads.params})
    assert isinstance(grads.state, tuple) == (CELLS[cell].states == 2)


@every_cell
@pytest.mark.parametrize("sizes", [(4, 1, 6, 600), (4, 3, 16, 600), (7, 64, 40, 40), (7, 50, 32, 40)], ids=str)
def test_what_threads_copy(cell: str, sizes: tuple[int, int, int, int]) -> None:
    """x and y, by rows or steps or units, whoever computes what."""
    p = Problem(cell, *sizes)
    expected, alone = p.run(), p.gradients(BACKENDS["cpu"])
    for threads in (1, 2, 3):
        gpurnn.set_num_threads(threads)
        x = p.x.copy()
        (y, last), vjp = p.layer.vjp(x, p.state)
        assert_same_bits((y, last), expected)
        x.fill(np.nan)
        y.fill(np.nan)
        assert_same_bits(named(vjp(p.dy, p.dstate)), alone)


@every_cell
@pytest.mark.parametrize("inputs", [1, 6])
def test_strided_x(cell: str, inputs: int) -> None:
    p = Problem(cell, 6, 4, inputs, 9)
    _, vjp = p.layer.vjp(p.x)
    expected = named(vjp(p.dy))
    wide = np.full((12, 5, 2 * inputs), np.nan, np.float32)
    wide[::-2, 1:, ::2] = p.x
    reversed_twice = np.flip(p.x[..., ::-1].copy(), -1)
    for x in (wide[::-2, 1:, ::2], np.asfortranarray(p.x), reversed_twice):
        _, vjp = p.layer.vjp(x)
        x.fill(np.nan)
        assert_same_bits(named(vjp(p.dy)), expected)


@every_cell
def test_strided_dy(cell: str) -> None:
    p = Problem(cell, 6, 4, 5, 9, bidirectional=True)
    _, vjp = p.layer.vjp(p.x)
    expected = named(vjp(p.dy))
    wide = np.full((12, 5, 30), np.nan, np.float32)
    wide[::-2, 1:, 5:23] = p.dy
    strided: list[Any] = [wide[::-2, 1:, 5:23], np.asfortranarray(p.dy), np.flip(p.dy[..., ::-1].copy(), -1)]
    one = np.broadcast_to(p.dy[:1, :1, :1], p.dy.shape)
    for dy in strided:
        assert_same_bits(named(vjp(dy)), expected)
    assert_same_bits(named(vjp(one)), named(vjp(one.copy())))
