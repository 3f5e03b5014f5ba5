"""Sigma and tanh as kernels compute them: distance from exact values, with the interpreter's approximate instructions
erring as far as NVIDIA's documentation lets them."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import Floats, emulated_device

from ptx_emulator import threads
from ptx_emulator.compile import why_not

if why := why_not():
    pytest.skip(why, allow_module_level=True)

from gpurnn_kernels.cuda.block import THREADS, row_and_column
from gpurnn_kernels.cuda.host.device import Kernel
from gpurnn_kernels.cuda.intrinsics.activations import ACCURATE, FAST
from gpurnn_kernels.cuda.intrinsics.lanes import lanes_of
from gpurnn_kernels.cuda.intrinsics.traced import traced_activations
from gpurnn_kernels.cuda.records import Count, Number, record_type

SINGLE, DOUBLE = np.dtype("float32"), np.dtype("float64")
EXACT: dict[str, Callable[[Any], Any]] = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh}
EXACT["forget"] = EXACT["sigmoid"]


class Applied(NamedTuple):
    x: Number
    other: Number
    y: Number
    width: Count


@cache
def applying(name: str, bits: int, fast: bool) -> Kernel:
    function = getattr(traced_activations(FAST if fast else ACCURATE), name)
    load, store, _ = lanes_of(1, bits)
    BOTH = name == "sigmoid_tanh"

    def apply(a: Any) -> None:
        row, unit = row_and_column()
        if row < 1 and unit < a.width:
            x = load(a.x, unit)
            store(a.y, unit, function(x, load(a.other, unit)) if BOTH else function(x))

    return Kernel(f"{name}_{bits}_{fast}", apply, (record_type(Applied, bits),), THREADS)


def computed(name: str, x: Floats, other: Floats | None = None, *, fast: bool = False) -> Floats:
    device = emulated_device()
    arrays = [device.upload(a) for a in (x, x if other is None else other)]
    y = device.empty(x.shape, x.dtype)
    device.launcher(applying(name, 8 * x.itemsize, fast), (1, -(-x.size // 32)), Applied(*arrays, y, x.size))()
    return np.array(y)


def inputs(dtype: np.dtype[Any], count: int = 40_000) -> Floats:
    """Numbers of all sizes, dense where the functions bend and where sigma is about to vanish."""
    rng = np.random.default_rng(0)
    most = 87.3 if dtype == SINGLE else 708.3
    parts = [
        rng.uniform(-4, 4, count),
        rng.choice([-1, 1], count) * rng.uniform(0.5, 0.6, count),
        rng.uniform(-most, most, count),
        rng.choice([-1, 1], count) * 10.0 ** rng.uniform(-30, 1, count),
        np.arange(-most, most, np.log(2) / 2),
        np.nextafter(np.arange(-20, 20, np.log(2)), 0),
    ]
    return np.concatenate(parts).astype(dtype)


def ulps(actual: Floats, exact: Any) -> Floats:
    """Distances in units in the last place of the exact value; results too small for a normal number count as zero."""
    dtype = actual.dtype
    tiny = np.finfo(dtype).tiny
    spacing = np.spacing(np.maximum(np.abs(exact), tiny).astype(dtype)).astype(np.longdouble)
    error = np.abs(actual.astype(np.longdouble) - exact) / spacing
    return np.where(np.abs(exact) < tiny, 0, error)  # type: ignore[no-any-return]


ERRORS = ["by chance", "too high", "too low", "either"]
# in float64 no instruction is modelled with an error
every_case = pytest.mark.parametrize(
    ("dtype", "errors"), [*((SINGLE, e) for e in ERRORS), (DOUBLE, ERRORS[0])], indirect=["errors"]
)


@pytest.fixture
def errors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Approximate instructions err by a random part of what is documented, or by all of it."""
    chance = threads._hashed
    kinds: dict[str, Callable[[Any], Any]] = {
        "by chance": chance,
        "too high": lambda x: 1.0,
        "too low": lambda x: -1.0,
        "either": lambda x: np.where(chance(x) < 0, -1.0, 1.0),
    }
    monkeypatch.setattr(threads, "_hashed", kinds[request.param])
    return str(request.param)


@pytest.mark.usefixtures("errors")
@every_case
@pytest.mark.parametrize("name", EXACT)
def test_within_4_ulp(name: str, dtype: np.dtype[Any]) -> None:
    x = inputs(dtype)
    exact = EXACT[name](x.astype(np.longdouble))
    assert ulps(computed(name, x), exact).max() <= 4


@pytest.mark.usefixtures("errors")
@every_case
def test_the_forget_gate_near_one_is_rounded_once(dtype: np.dtype[Any]) -> None:
    x = np.random.default_rng(2).uniform(7, 11, 10_000).astype(dtype)
    difference = computed("forget", x).astype(np.longdouble) - EXACT["forget"](x.astype(np.longdouble))
    error = difference / np.spacing(dtype.type(0.9))
    assert np.abs(error).max() <= 0.51
    assert abs(error.mean()) <= 0.02


@every_case
def test_the_product_is_within_6_ulp(dtype: np.dtype[Any], errors: str) -> None:
    """sigma(a) tanh(b) with one quotient: the two errors add up, to 8 ulp if all instructions err as far as they may."""
    a, b = inputs(dtype), np.random.default_rng(1).permutation(inputs(dtype))
    exact = EXACT["sigmoid"](a.astype(np.longdouble)) * np.tanh(b.astype(np.longdouble))
    assert ulps(computed("sigmoid_tanh", a, b), exact).max() <= (6 if errors == "by chance" else 8)


@pytest.mark.usefixtures("errors")
@every_case
def test_limits_and_nan(dtype: np.dtype[Any]) -> None:
    most = np.finfo(dtype).max
    x = np.array([0.0, -0.0, np.inf, -np.inf, most, -most, np.nan, 100, 2000, -2000], dtype)
    np.testing.assert_array_equal(computed("sigmoid", x), np.array([0.5, 0.5, 1, 0, 1, 0, np.nan, 1, 1, 0], dtype))
    np.testing.assert_array_equal(computed("forget", x), computed("sigmoid", x))
    tanh = computed("tanh", x)
    np.testing.assert_array_equal(tanh, np.array([0, 0, 1, -1, 1, -1, np.nan, 1, 1, -1], dtype))
    nan, one = np.full(4, np.nan, dtype), np.array([np.inf, -np.inf, 0, 1], dtype)
    assert np.isnan(computed("sigmoid_tanh", nan, one)).all()
    assert np.isnan(computed("sigmoid_tanh", one, nan)).all()


def test_fast_math_is_as_near_as_documented() -> None:
    x = inputs(SINGLE)
    tanh = np.tanh(x.astype(np.float64))
    assert (np.abs(computed("tanh", x, fast=True) - tanh) <= 2.0**-10.9 * np.abs(tanh) + 1e-37).all()
    sigmoid = 1 / (1 + np.exp(-x.astype(np.float64)))
    error = np.abs(computed("sigmoid", x, fast=True) - sigmoid).max()
    assert 1e-6 < error <= 2.0**-11.9
