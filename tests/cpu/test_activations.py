"""Sigma and tanh on vectors, over a dense sample of all numbers: errors in units in the last place."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from helpers import Floats
from numba import njit
from ulps import ULPS, error_in_ulps, exact

from gpurnn_kernels.cpu.codegen.activations import ACTIVATIONS
from gpurnn_kernels.cpu.codegen.aligned import aligned
from gpurnn_kernels.cpu.codegen.bundle import pointwise
from gpurnn_kernels.cpu.codegen.intrinsics import flush_denormals, restore_denormals
from gpurnn_kernels.cpu.codegen.target import target

KINDS = [np.float32, np.float64]
every_kind = pytest.mark.parametrize("kind", KINDS)


def stored(name: str, function: Callable[..., Any], arguments: int) -> Any:
    """A kernel's intrinsic that stores a function of the vectors at a and b."""

    def emit(v: Any, to: Any, a: Any, b: Any) -> None:
        v.store(to, function(*[v.load(a), v.load(b)][:arguments]))

    emit.__name__ = emit.__qualname__ = name
    return pointwise(emit)


FUNCTIONS = {
    "sigmoid": stored("sigmoid", ACTIVATIONS.sigmoid, 1),
    "forget": stored("forget", ACTIVATIONS.forget, 1),
    "tanh": stored("tanh", ACTIVATIONS.tanh, 1),
    "sigmoid_tanh": stored("sigmoid_tanh", ACTIVATIONS.sigmoid_tanh, 2),
}
SIGMAS = ["sigmoid", "forget"]


@cache
def kernel(name: str) -> Callable[..., None]:
    function, size = FUNCTIONS[name], target().vector_bytes

    @njit
    def run(zero, to, a, b, vectors):  # type: ignore[no-untyped-def]
        before = flush_denormals()
        for i in range(vectors):
            function(zero, (to + i * size, a + i * size, b + i * size))
        restore_denormals(before)

    return run


def apply(name: str, x: Floats, b: Floats | None = None) -> Floats:
    """A function of a vector's lanes, of each element of x, with denormals flushed as in the kernels."""
    lanes = target().lanes(x.itemsize)
    count = -(-x.size // lanes)
    arrays = [aligned(count * lanes, x.dtype) for _ in range(3)]
    arrays[1][: x.size] = x
    arrays[2][: x.size] = x if b is None else b
    kernel(name)(x.dtype.type(0), *(a.ctypes.data for a in arrays), count)
    return arrays[0][: x.size].copy()


def near(points: list[float], kind: type) -> Floats:
    """The floats around some numbers, of both signs."""
    whole = np.array(points, kind).view(np.int32 if kind is np.float32 else np.int64)
    around = (whole[:, None] + np.arange(-200, 201)).ravel()
    positive = around[around >= 0].astype(whole.dtype).view(kind)
    return np.concatenate([positive, -positive])


def numbers(kind: type) -> Floats:
    """Every 2**9th float32, or as many float64 by exponent and where the functions are not constant; no NaN."""
    turns = [
        np.log(2) / 2,
        np.log(2),
        0.25,
        0.5,
        1,
        2,
        8,
        8.66,
        9,
        10,
        16.6,
        17.3,
        19.1,
        20,
        36.7,
        44,
        64,
        87.3,
        88.7,
        103.9,
        104,
    ]
    turns += [
        0.0,
        1e-30,
        709.7,
        708.3,
        745.1,
        746.0,
        *(np.arange(1, 40) * np.log(2) / 2),
        np.finfo(kind).tiny,
        np.finfo(kind).max,
    ]
    if kind is np.float32:
        dense = (np.arange(2**23, dtype=np.uint32) << 9).view(np.float32)
    else:
        bits = np.random.default_rng(0).integers(0, 2**64, 1 << 19, np.uint64, endpoint=False)
        dense = np.concatenate([bits.view(np.float64), np.linspace(-750, 750, 1 << 19), np.linspace(-1, 1, 1 << 17)])
    found = np.concatenate([dense, near(turns, kind)])
    return found[~np.isnan(found)]


@every_kind
@pytest.mark.parametrize("name", [*SIGMAS, "tanh"])
def test_error(name: str, kind: type) -> None:
    x = numbers(kind)
    assert error_in_ulps(apply(name, x), exact(name, x)) <= ULPS


@every_kind
def test_the_forget_gate_near_one_is_rounded_once(kind: type) -> None:
    """A cell multiplies c by it at every step, so that errors in one direction would add up."""
    x = np.random.default_rng(2).uniform(7, 11, 1 << 16).astype(kind)
    error = (apply("forget", x) - exact("forget", x)) / np.spacing(kind(0.9))
    assert np.max(np.abs(error)) <= 0.51
    assert abs(np.mean(error)) <= 0.01


@every_kind
def test_error_of_the_product(kind: type) -> None:
    """sigma(a) tanh(b) with one division: the two errors add up."""
    rng = np.random.default_rng(1)
    a, b = (scale * rng.standard_normal(1 << 20).astype(kind) for scale in (20, 3))
    assert error_in_ulps(apply("sigmoid_tanh", a, b), exact("sigmoid_tanh", a, b)) <= 2 * ULPS
    for scale in (1e-3, 1e-30):
        assert error_in_ulps(apply("sigmoid_tanh", a, scale * b), exact("sigmoid_tanh", a, scale * b)) <= 2 * ULPS


@every_kind
def test_limits(kind: type) -> None:
    inf, most = np.inf, np.finfo(kind).max
    x = np.array([-inf, -most, -0.0, 0.0, most, inf], kind)
    for name in SIGMAS:
        np.testing.assert_array_equal(apply(name, x), np.array([0, 0, 0.5, 0.5, 1, 1], kind))
    np.testing.assert_array_equal(apply("tanh", x), np.array([-1, -1, 0, 0, 1, 1], kind))
    np.testing.assert_array_equal(np.signbit(apply("tanh", x)), np.signbit(x))


@every_kind
def test_nan_in_gives_nan_out(kind: type) -> None:
    lanes = target().lanes(np.dtype(kind).itemsize)
    good = np.linspace(-3, 3, lanes).astype(kind)
    for name in FUNCTIONS:
        for lane in range(lanes):
            for nan in (np.nan, -np.nan):
                x = good.copy()
                x[lane] = nan
                for found in (apply(name, x, good), *([apply(name, good, x)] if name == "sigmoid_tanh" else [])):
                    assert np.isnan(found[lane])
                    assert np.isfinite(np.delete(found, lane)).all()


@every_kind
def test_ranges_and_signs(kind: type) -> None:
    x = numbers(kind)
    s, t = apply("sigmoid", x), apply("tanh", x)
    assert s.min() >= 0
    assert s.max() <= 1
    assert np.abs(t).max() <= 1
    assert np.array_equal(np.signbit(t), np.signbit(x))
    assert np.array_equal(apply("tanh", -x), -t)


@every_kind
@pytest.mark.parametrize("name", SIGMAS)
def test_sigmoid_far_on_the_negative_side(name: str, kind: type) -> None:
    """Relative accuracy down to the smallest normal number."""
    x = np.linspace(np.log(float(np.finfo(kind).tiny)) + 1e-4, -15, 100_001).astype(kind)
    found, wanted = apply(name, x), exact(name, x)
    assert found.min() > 0
    assert np.max(np.abs(found / wanted - 1)) <= ULPS * np.finfo(kind).eps
    assert np.all(np.diff(found) >= -ULPS * np.spacing(found[1:]))
    below = np.linspace(-800, 2 * x[0] - x[1], 1001).astype(kind)
    assert np.max(apply(name, below)) <= found[0]
