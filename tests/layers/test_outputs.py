"""Outputs of layers, against the reference."""

import numpy as np
import pytest
from helpers import BACKENDS, LAYERS, OUTPUTS, Backend, Problem, assert_near, assert_same_bits, leaves, new_layer, not_emulated
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    every_cell,
    every_dtype,
    every_kind,
    every_option_of_layers,
    every_size,
    everywhere,
    six_rows,
    small_problems,
)
from reference import packed, parts

import gpurnn


def check(p: Problem, backend: Backend, dtype: str) -> None:
    y, state = p.run(backend)
    assert {a.dtype.name for a in leaves((y, state))} == {dtype}
    assert_near((y, state), p.expected(), OUTPUTS[dtype])
    if p.lengths is not None:
        assert np.all(y[p.past] == 0)


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
@every_dtype
def test_long_and_wide(cell: str, dtype: str, backend: Backend) -> None:
    not_emulated(backend)
    check(Problem(cell, 64, 3, 256, 512, dtype=dtype), backend, dtype)


@every_dtype
@pytest.mark.parametrize("threads", [1, 2])
def test_an_odd_number_of_vectors(dtype: str, threads: int) -> None:
    """A reset-before GRU with more weights than a cache has room for: few rows, and more."""
    gpurnn.set_num_threads(threads)
    p = Problem("gru", 9, 5, 3, 424, dtype=dtype, lengths=[9, 2, 7, 0, 5])
    check(p, BACKENDS["cpu"], dtype)
    y, state = p.run()
    for row in range(0, 5, 2):
        some = slice(row, row + 2)
        got = p.layer(p.x[:, some], np.ascontiguousarray(p.state[:, some]), p.lengths[some])
        assert_same_bits(got, (y[:, some], state[:, some]))


@every_kind
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.usefixtures("small_blocks")
def test_many_blocks_of_rows_and_chunks_of_steps(kind: str, direction: str) -> None:
    for lengths in (None, [*range(12)] * 5):
        check(Problem(kind, 11, 60, 5, 33, lengths=lengths, **LAYERS[direction]), BACKENDS["cpu"], "float32")


@every_cell
@settings(max_examples=25, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_small_problem(cell: str, data: st.DataObject) -> None:
    p = data.draw(small_problems(cell, OUTPUTS))
    check(p, BACKENDS["cpu"], p.x.dtype.name)


@every_cell
def test_no_state_is_zeros(cell: str, backend: Backend) -> None:
    p = Problem(cell)
    zeros = packed([backend.array(np.zeros_like(s)) for s in parts(p.state)])
    x = backend.array(p.x)
    found, expected = (tuple(map(backend.numpy, leaves(p.layer(x, state)))) for state in (None, zeros))
    assert_same_bits(found, expected)


@every_cell
@pytest.mark.parametrize("options", ["forward", "both", "stacked", "batch-first"])
def test_without_a_batch(cell: str, options: str) -> None:
    p = Problem(cell, 6, 1, 5, 9, **LAYERS[options])
    for n in (None, np.int64(4)):
        p.lengths = None if n is None else [int(n)]
        y, state = p.run()
        y_1, state_1 = p.layer(p.x[:, 0], packed([s[:, 0] for s in parts(p.state)]), n)
        assert_same_bits(y_1, y[:, 0])
        assert_same_bits(state_1, packed([s[:, 0] for s in parts(state)]))


@every_cell
@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64, list, tuple])
def test_kinds_of_lengths(cell: str, kind: type) -> None:
    p = Problem(cell, lengths=[5, 0, 3])
    lengths = kind(p.lengths) if kind in (list, tuple) else np.array(p.lengths, kind)
    assert_same_bits(p.layer(p.x, p.state, lengths), p.run())


@every_cell
def test_the_layouts_of_outputs(cell: str) -> None:
    """A caller may count on this: y in x's layout without gaps, all arrays writeable and no part of the inputs."""
    for options in ("forward", "batch-first", "stacked"):
        p = Problem(cell, **LAYERS[options])
        y, state = p.layer(p.laid_out(p.x).copy(), p.state)
        assert y.flags.c_contiguous
        for a in leaves((y, state)):
            assert a.flags.writeable
            assert not any(np.shares_memory(a, b) for b in (p.x, *leaves(p.state)))


@every_cell
def test_inputs_stay_as_they_are(cell: str) -> None:
    p = Problem(cell, lengths=[5, 0, 3], num_layers=2, bidirectional=True)
    before = [a.copy() for a in (p.x, p.dy, *leaves(p.state), *leaves(p.dstate))]
    p.run()
    p.gradients()
    assert_same_bits((p.x, p.dy, *leaves(p.state), *leaves(p.dstate)), tuple(before))


@every_cell
@every_dtype
def test_saturated_gates_and_huge_inputs(cell: str, dtype: str) -> None:
    p = Problem(cell, dtype=dtype)
    p.x = np.where(p.x > 0, 1e30, -1e30).astype(dtype)
    check(p, BACKENDS["cpu"], dtype)


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_stay_in_their_row(kind: str, bad: float) -> None:
    p = Problem(kind, 6, 9, 5, 17)
    clean, _ = p.run()
    p.x[3, 4, 2] = bad
    y, _ = p.run()
    others = np.arange(9) != 4
    assert_same_bits(y[:, others], clean[:, others])
    assert_same_bits(y[:3], clean[:3])
    if np.isnan(bad):
        assert np.isnan(y[3:, 4]).all()
    else:
        expected, _ = p.expected()
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_forget_bias_is_added_to_the_forget_gates() -> None:
    plain, biased = (new_layer("lstm", 3, 5, 2, forget_bias=b, seed=1, bidirectional=True).params for b in (0.0, 1.5))
    for name, a in biased.items():
        expected = plain[name].copy()
        if name.endswith(".b"):
            expected[:5] += np.float32(1.5)
        assert_same_bits(a, expected)


@every_cell
def test_initial_parameters(cell: str) -> None:
    layer = new_layer(cell, 50, 100, seed=7)
    assert_same_bits(new_layer(cell, 50, 100, seed=7).params, layer.params)
    assert not np.array_equal(new_layer(cell, 50, 100, seed=8).params["layers.0.W_x"], layer.params["layers.0.W_x"])
    assert not np.array_equal(new_layer(cell, 50, 100).params["layers.0.b"], new_layer(cell, 50, 100).params["layers.0.b"])
    for name, a in layer.params.items():
        assert 0.08 < np.abs(a).max() <= np.float32(0.1), name
        assert abs(a.mean()) < 0.02, name
