"""NumPy's settings for floating-point errors change nothing: numbers too large or too small are a layer's own business."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import Problem, assert_same_bits, leaves, named, new_layer
from reference_cells import CELLS

import gpurnn

every_cell = pytest.mark.parametrize("cell", CELLS)
FACTORS = (3e38, 1e-40)  # what leaves float32's normal numbers


@pytest.fixture(autouse=True)
def _all_raise() -> Iterator[None]:
    before = np.seterr(all="raise")
    yield
    np.seterr(**before)


def quietly(call: Callable[[], Any]) -> Any:
    with np.errstate(all="ignore"):
        return call()


def assert_same(call: Callable[[], Any]) -> None:
    """A call gives the same arrays whether NumPy raises or not."""
    assert_same_bits(tuple(leaves(call())), tuple(leaves(quietly(call))))


@every_cell
@pytest.mark.parametrize("options", [{}, {"clip": 1e-60}, {"clip": 1e60}], ids=str)
def test_constructors(cell: str, options: dict[str, Any]) -> None:
    for dtype in ("float16", "float32"):
        assert_same(lambda dtype=dtype: tuple(new_layer(cell, 64, 64, dtype=dtype, seed=0, **options).params.values()))
    layer = new_layer(cell, 3, 4, seed=0, **options)
    assert_same(lambda: layer(np.ones((3, 2, 3), np.float32)))


@pytest.mark.parametrize("bias", [1e-60, 1e60])
def test_forget_biases(bias: float) -> None:
    assert_same(lambda: tuple(gpurnn.LSTM(3, 4, forget_bias=bias, seed=0).params.values()))


@every_cell
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}], ids=str)
def test_calls_and_gradients(cell: str, factor: float, options: dict[str, Any]) -> None:
    p = Problem(cell, 4, 3, 5, 20, **options)  # units are left over after whole vectors
    p.params = quietly(lambda: {name: a * np.float32(factor) for name, a in p.params.items()})
    dy = quietly(lambda: p.dy * np.float32(factor))
    assert_same(lambda: p.layer(p.x))
    assert_same(lambda: p.layer(p.x, p.state, [4, 0, 2]))

    def gradients() -> Any:
        return tuple(named(p.layer.vjp(p.x)[1](dy)).values())

    assert_same(gradients)
    if not options:
        assert_same(lambda: p.layer.stream(3).step(p.x[0]))


@pytest.mark.parametrize("factor", FACTORS)
def test_coupled_gates(factor: float) -> None:
    layer = gpurnn.LSTM(3, 4, input_forget=True, seed=0)
    x = np.ones((5, 2, 3), np.float32)
    dy = quietly(lambda: np.full((5, 2, 4), factor, np.float32) * np.float32(factor))
    assert_same(lambda: tuple(named(layer.vjp(x)[1](dy)).values()))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("factor", FACTORS)
def test_converters(kind: str, factor: float) -> None:
    gates = {"lstm": 4, "gru": 3}[kind]
    draw = np.random.default_rng(0).uniform
    shapes = {"weight_ih_l0": (gates * 4, 3), "weight_hh_l0": (gates * 4, 4), "bias_ih_l0": gates * 4, "bias_hh_l0": gates * 4}
    state = quietly(lambda: {name: draw(0.7, 1, shape).astype("f4") * np.float32(factor) for name, shape in shapes.items()})

    def converted() -> Any:
        try:
            return tuple(gpurnn.from_torch(state).params.values())
        except ValueError as refused:  # where PyTorch was imported, the check that follows finds NaN in what it computes
            return (np.frombuffer(str(refused).encode(), np.uint8),)

    assert_same(converted)
