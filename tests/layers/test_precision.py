"""Layers with precision="bf16" and "int8": their factors are rounded as documented, and nothing else is.

The promises of such layers, bit for bit, are rows of the tables of `test_promises.py`.
"""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import reference
from helpers import LAYERS, OUTPUTS, Floats, Problem, assert_same_bits, leaves
from problems import every_cell, every_kind, every_precision
from reference import parts
from reference_cells import Options, Weights

import gpurnn

NEAR = {"bf16": 0.03, "int8": 0.05}  # of the largest output, after a few steps
WEIGHTS = ("W_x", "W_h", "W_p")


def to_bf16(a: Floats) -> Floats:
    """The nearest numbers that have 8 bits, those between two the one whose last bit is 0."""
    mantissa, exponent = np.frexp(a.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 256), exponent - 8)


def to_int8(a: Floats, factor: Floats) -> Floats:
    return np.rint(a.astype(np.float64) * factor.astype(np.float64))


def rounded_weights(w: Floats, precision: str) -> Floats:
    """W (G*H, K) as it is multiplied."""
    if precision == "bf16":
        return to_bf16(w)
    scale = np.abs(w).max(axis=1, keepdims=True) / np.float32(127)
    return np.rint(w / np.where(scale > 0, scale, 1)).astype(np.float64) * scale


def rounded_rows(a: Floats, precision: str) -> Floats:
    """x, h, r * h or m, (B, K), as they are multiplied."""
    a = a.astype(np.float32)
    if precision == "bf16":
        return to_bf16(a)
    largest = np.abs(a).max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        factor = np.minimum(np.float32(127) / largest, np.float32(3e38))
    return to_int8(a, factor) * (largest * np.float32(1 / 127))


class Rounding(np.ndarray[Any, Any]):
    """Weights that round what they are multiplied by."""

    precision: str

    @classmethod
    def of(cls, w: Floats, precision: str) -> "Rounding":
        made = rounded_weights(w.astype(np.float32), precision).view(cls)
        made.precision = precision
        return made

    def __array_finalize__(self, other: Any) -> None:
        self.precision = getattr(other, "precision", "")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        plain = [np.asarray(one) for one in inputs]
        if ufunc is np.matmul:
            plain[0] = rounded_rows(plain[0], self.precision)
        return getattr(ufunc, method)(*plain, **more)


def one_step(p: Problem, precision: str, x: Floats, state: Any) -> list[Floats]:
    """A step of a layer from a state (1, B, ..), by the reference's equations on rounded factors."""
    cell = Options(**{name: value for name, value in p.options.items() if name in Options._fields}).applied(p.cell)
    w: Weights = reference._weights(cell, p.params, "layers.0.")
    given = {name: Rounding.of(getattr(w, name), precision) for name in WEIGHTS if getattr(w, name).size}
    return list(cell.step(w._replace(**given), x.astype(np.float64), *(s[0].astype(np.float64) for s in parts(state))))


@every_kind
@every_precision
@pytest.mark.parametrize("sizes", [(3, 1, 1, 6), (4, 3, 4, 7), (3, 13, 33, 40), (2, 2, 70, 129)], ids=str)
def test_every_step_is_the_step_of_rounded_factors(kind: str, precision: str, sizes: tuple[int, int, int, int]) -> None:
    p = Problem(kind, *sizes, precision=precision)
    B = sizes[1]
    stream = p.layer.stream(B, p.state)
    # r * h and m are rounded, too: at a tie, the last bit of a float decides
    rounds_more = p.cell == "gru" or "proj_size" in p.options
    for x in p.x:
        expected = one_step(p, precision, x, stream.state)
        stream.step(x)
        for got, wanted in zip(parts(stream.state), expected, strict=True):
            error = np.abs(got[0] - wanted) / max(1.0, float(np.abs(wanted).max()))
            if rounds_more:
                assert np.mean(error > 2 * OUTPUTS["float32"]) < 0.02
                assert error.max() < NEAR[precision]
            else:
                assert error.max() < 2 * OUTPUTS["float32"]


@every_cell
@every_precision
@pytest.mark.parametrize("options", LAYERS)
@pytest.mark.parametrize("lengths", [None, [4, 0, 2, 5, 5, 1, 3]], ids=["full", "ragged"])
def test_layers_stay_near_float32(cell: str, precision: str, options: str, lengths: list[int] | None) -> None:
    p = Problem(cell, 5, 7, 21, 36, precision=precision, lengths=lengths, **LAYERS[options])
    for got, wanted in zip(leaves(p.run()), leaves(p.expected()), strict=True):
        difference = np.abs(got - wanted).max()
        assert 0 < difference < NEAR[precision] * np.abs(wanted).max()
    if lengths is not None:
        assert np.all(p.run()[0][p.past] == 0)


@every_cell
@every_precision
def test_any_strides_of_x(cell: str, precision: str) -> None:
    p = Problem(cell, 5, 6, 9, 20, precision=precision)
    expected = p.run()
    for x in (np.asfortranarray(p.x), np.repeat(p.x, 2, axis=2)[..., ::2], p.x[::-1].copy()[::-1]):
        assert_same_bits(p.layer(x, p.state), expected)


@every_cell
@every_precision
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_stay_in_their_row(cell: str, precision: str, bad: float) -> None:
    """In int8 the row is NaN from its step on. In bf16 an infinity saturates, as in float32."""
    p = Problem(cell, 6, 5, 9, 20, precision=precision, num_layers=2)
    y, _ = p.run()
    x = p.x.copy()
    x[2, 3, 4] = bad
    got, _ = p.layer(x, p.state)
    others = [0, 1, 2, 4]
    assert_same_bits(got[:, others], y[:, others])
    assert_same_bits(got[:2], y[:2])
    plain = p.layer.with_precision(None)(x, p.state)[0]
    if precision == "int8" or np.isnan(bad):
        assert np.isnan(got[2:, 3]).all()
    else:
        assert_same_bits(np.isnan(got), np.isnan(plain))


@every_cell
def test_rows_of_zeros_and_of_tiny_numbers_in_int8(cell: str) -> None:
    p = Problem(cell, 3, 4, 9, 20, precision="int8")
    nothing, tiny = p.layer(np.zeros_like(p.x), p.state), p.layer(p.x * np.float32(1e-38), p.state)
    for got, wanted in zip(leaves(tiny), leaves(nothing), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


def test_weights_that_are_not_finite_make_their_unit_nan_in_int8() -> None:
    p = Problem("lstm", 1, 3, 9, 20, precision="int8")
    p.layer.load_params(p.params | {"layers.0.W_x": with_one(p.params["layers.0.W_x"], 7, np.inf)})
    y, _ = p.layer(p.x)
    assert np.isnan(y[..., 7]).all()
    assert np.isfinite(np.delete(y, 7, axis=2)).all()


def with_one(array: Floats, row: int, value: float) -> Floats:
    array = array.copy()
    array[row, 0] = value
    return array


# The layer


@every_precision
def test_with_precision(precision: str) -> None:
    p = Problem("lstm", num_layers=2)
    layer = p.layer.with_precision(precision)
    assert (layer.precision, p.layer.precision) == (precision, None)
    assert_same_bits(dict(layer.params), dict(p.layer.params))
    assert f"precision={precision!r}" in repr(layer)
    assert layer.configuration()["precision"] == precision
    made = gpurnn.LSTM(**layer.configuration())
    made.load_params(p.params)
    for same in (
        made,
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        layer.with_precision(None).with_precision(precision),
    ):
        assert_same_bits(same(p.x, p.state), layer(p.x, p.state))
    assert_same_bits(layer.with_precision(None)(p.x, p.state), p.layer(p.x, p.state))
    line = layer.plan(p.x).layers[0]
    assert precision in line
    assert precision not in p.layer.plan(p.x).layers[0]


@every_precision
def test_new_parameters(precision: str) -> None:
    p = Problem("gru", precision=precision)
    p.run()
    halves = {name: a / 2 for name, a in p.params.items()}
    p.layer.load_params(halves)
    other = Problem("gru", precision=precision).layer
    other.load_params(halves)
    assert_same_bits(p.layer(p.x), other(p.x))


@every_precision
def test_gradients_are_refused(precision: str) -> None:
    p = Problem("lstm", precision=precision)
    with pytest.raises(NotImplementedError, match=r"with_precision\(None\)"):
        p.layer.vjp(p.x)


@pytest.mark.parametrize("precision", ["int4", "float32", "", "INT8"])
def test_unknown_precisions(precision: str) -> None:
    with pytest.raises(ValueError, match="expected None, 'tf32', 'bf16' or 'int8'"):
        gpurnn.LSTM(3, 4, precision=precision)


def test_a_precision_is_a_plain_string() -> None:
    layer = gpurnn.LSTM(3, 4, precision=np.str_("int8"))
    assert type(layer.precision) is str
    assert repr(layer) == "LSTM(3, 4, precision='int8')"


@every_precision
def test_other_dtypes_are_refused(precision: str) -> None:
    with pytest.raises(ValueError, match="expected dtype float32"):
        gpurnn.GRU(3, 4, dtype="float64", precision=precision)


@pytest.mark.parametrize(("inputs", "units"), [(132_105, 1), (1, 132_105)])
def test_sums_that_32_bits_would_not_hold(inputs: int, units: int) -> None:
    with pytest.raises(ValueError, match="at most 132104"):
        gpurnn.LSTM(inputs, units, precision="int8")


def test_the_largest_sum_that_32_bits_hold() -> None:
    layer = gpurnn.GRU(132_104, 1, bias=False, precision="int8")
    layer.load_params({name: np.full_like(a, 1e-5) for name, a in layer.params.items()})
    for sign in (1, -1):
        x = np.full((1, 1, 132_104), sign, np.float32)
        np.testing.assert_allclose(layer(x)[0], layer.with_precision(None)(x)[0], rtol=1e-3)
