"""The cell equations on NumPy arrays, and the public functions of one step, against the reference."""

import ast
import inspect
from typing import Any

import numpy as np
import pytest
import reference_cells
from helpers import OUTPUTS, Problem, assert_near, leaves
from reference_cells import Weights, sigmoid

import gpurnn
from gpurnn_kernels import cells
from gpurnn_kernels.cells import Activations, make_cells

CELLS = make_cells(
    Activations(
        sigmoid,
        np.tanh,
        sigmoid_tanh=lambda a, b: sigmoid(a) * np.tanh(b),
        forget=sigmoid,
        complement=lambda a: 1 - a,
        sigmoid_grad=lambda s, q, dp: dp * q * s * (1 - s),
        tanh_grad=lambda t, dt: dt * (1 - t * t),
    )
)
B, H = 5, 6


def draw(*names: str) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((B, H)) for _ in names]


def without_products(gates: list[Any], q: Any = None) -> tuple[Weights, Any]:
    """Weights that hand their inputs to the gates: with I = G * H, W_x x is x."""
    x = np.concatenate(gates, axis=1)
    GH = x.shape[1]
    return Weights(np.eye(GH), np.zeros((GH, H)), np.zeros(GH), np.zeros(H)), x


def test_lstm() -> None:
    f_, i_, o_, g_, h, c, dh, dc = draw(*"fiogHCdD")
    w, x = without_products([f_, i_, o_, g_])
    h_new, c_new = CELLS.lstm_cell(f_, i_, o_, g_, c)
    assert_near((h_new, c_new), reference_cells.lstm_step(w, x, h, c), 1e-14)
    gates = CELLS.lstm_gates(f_, i_, o_, g_)
    *d_gates, dc_prev = CELLS.lstm_cell_grad(*gates, c, c_new, dh, dc)
    dx, (_, dc_reference), _ = reference_cells.lstm_step_grad(w, x, h, c, dh, dc)
    assert_near((np.concatenate(d_gates, axis=1), dc_prev), (dx, dc_reference), 1e-14)


@pytest.mark.parametrize("form", ["before", "after"])
def test_gru(form: str) -> None:
    """With W_hn = 1 and no other recurrent weight, so that the reset gate has something to act on."""
    z_, r_, n_x, h, dh = draw(*"zrnhd")
    w, x = without_products([z_, r_, n_x])
    w.W_h[2 * H :] = np.eye(H)
    b_hn = w.b_hn + 0.3
    z, r = sigmoid(z_), sigmoid(r_)
    if form == "before":
        n_ = n_x + CELLS.gru_reset(r_, h)
        expected = reference_cells.gru_step(w, x, h)
    else:
        n_ = CELLS.gru_candidate(r_, h + b_hn, n_x)
        expected = reference_cells.gru_after_step(w._replace(b_hn=b_hn), x, h)
    assert_near(CELLS.gru_update(z_, n_, h), expected[0], 1e-14)

    dz_, dn_, dh_prev = CELLS.gru_update_grad(z, np.tanh(n_), h, dh)
    if form == "before":
        dr_, more = CELLS.gru_reset_grad(r, h, dn_)
        dx, (dh_reference,), _ = reference_cells.gru_step_grad(w, x, h, dh)
    else:
        dr_, more = CELLS.gru_candidate_grad(r, h + b_hn, dn_)
        dx, (dh_reference,), _ = reference_cells.gru_after_step_grad(w._replace(b_hn=b_hn), x, h, dh)
    assert_near((np.concatenate([dz_, dr_, dn_], axis=1), dh_prev + more), (dx, dh_reference), 1e-14)


def test_the_equations_hold_no_numbers() -> None:
    """A literal would turn float32 into float64 in a kernel."""
    tree = ast.parse(inspect.getsource(cells))
    numbers = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, int | float)]
    assert not numbers


@pytest.mark.parametrize("dtype", OUTPUTS)
@pytest.mark.parametrize("cell", reference_cells.CELLS)
def test_public_functions(cell: str, dtype: str) -> None:
    p = Problem(cell, 1, 5, 9, 23, dtype=dtype)
    step = gpurnn.lstm_cell if cell == "lstm" else gpurnn.gru_cell
    got = step(p.x[0], *(s[0] for s in leaves(p.state)), *p.params.values())
    _, expected = p.expected()
    assert isinstance(got, tuple) == (cell == "lstm")
    assert {a.dtype.name for a in leaves(got)} == {dtype}
    assert_near(leaves(got), [s[0] for s in leaves(expected)], OUTPUTS[dtype])


def test_public_functions_refuse_what_does_not_fit() -> None:
    p = Problem("lstm", 1, 5, 9, 23)
    names = ("x_t", "h", "c", "W_x", "W_h", "b")
    good = dict(zip(names, [p.x[0], *(s[0] for s in p.state), *p.params.values()], strict=True))
    gpurnn.lstm_cell(**good)
    for name, array in good.items():
        wrong = [array[1:], array[..., 1:], array[None]] if name not in ("x_t", "h") else [array[None], array[0]]
        for value in wrong:
            with pytest.raises(ValueError, match="expected shape"):
                gpurnn.lstm_cell(**{**good, name: value})
        for value in (array.astype(np.float64), array.astype(np.float16), array.tolist(), array.astype(object), None):
            with pytest.raises(TypeError, match=r"expected|\.astype"):
                gpurnn.lstm_cell(**{**good, name: value})
    with pytest.raises(ValueError, match="b_hn"):
        gpurnn.gru_cell(p.x[0], p.state[0][0], *(a[: 3 * 23] for a in p.params.values()), np.zeros(22, np.float32))
