"""The equations of LSTM and GRU cells and their exact gradients in NumPy float64: slow and obviously right.

Notation, in shapes and names:
    T steps    B rows (batch)    I input size    H hidden size    D directions    L layers
    P units of h in a projected LSTM, H in any other layer
    G gates: 4 in an LSTM, in the order f, i, o, g; 3 in a GRU, in the order z, r, n
    a~ is what enters a gate's sigma or tanh; da is the gradient of the loss with respect to a

An array of rows is (B, size), so the product W x of the literature reads `x @ W.T` here, and W^T d reads `d @ W`.
z is how much of the NEW value enters: h = (1 - z) * h_prev + z * n.

A cell is two functions, `*_step` and `*_step_grad`. Something that changes a cell's equations goes there, its
arrays go into `Weights`; `reference.py` runs them over steps, rows, directions and layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Weights(NamedTuple):
    """The weights of one layer in one direction, or their gradients."""

    W_x: Array  # (G*H, I)
    W_h: Array  # (G*H, P)
    b: Array  # (G*H,)
    b_hn: Array  # (H,), used by the reset-after GRU only
    W_p: Array = np.zeros((0, 0))  # (P, H), used by the projected LSTM only
    peephole: Array = np.zeros(0)  # (3*H,), used by the LSTM with peepholes only


def sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))  # neither overflows nor cancels
    return np.where(a >= 0, 1.0, e) / (1.0 + e)


def clipped(a: Array, clip: float | None) -> Array:
    return a if clip is None else np.clip(a, -clip, clip)


def inside(a: Array, clip: float | None) -> Array:
    """The derivative of `clipped`: 1 where it changes nothing, else 0."""
    return np.ones_like(a) if clip is None else np.where(np.abs(a) <= clip, 1.0, 0.0)


# LSTM: with W_p of its own if it is projected, with peepholes, with a clip of what enters the gates, with f = 1 - i if coupled


class LSTMGates(NamedTuple):
    f: Array  # all (B, H)
    i: Array
    o: Array
    g: Array
    c: Array
    slopes: list[Array]  # of f, i, o, g by what enters them before it is clipped


def lstm_gates(
    w: Weights, x: Array, h_prev: Array, c_prev: Array, clip: float | None = None, coupled: bool = False
) -> LSTMGates:
    """x (B, I), h_prev (B, P), c_prev (B, H) -> the gates and c."""
    f, i, o, g = np.split(h_prev @ w.W_h.T + x @ w.W_x.T + w.b, 4, axis=1)  # f~, i~, o~, g~
    if w.peephole.size:
        p_f, p_i, p_o = np.split(w.peephole, 3)
        f = f + p_f * c_prev
        i = i + p_i * c_prev
    f_in, i_in, g_in = inside(f, clip), inside(i, clip), inside(g, clip)
    i, g = sigmoid(clipped(i, clip)), np.tanh(clipped(g, clip))
    f = 1 - i if coupled else sigmoid(clipped(f, clip))
    c = f * c_prev + i * g
    if w.peephole.size:
        o = o + p_o * c
    o_in = inside(o, clip)
    o = sigmoid(clipped(o, clip))
    slopes = [f * (1 - f) * f_in, i * (1 - i) * i_in, o * (1 - o) * o_in, (1 - g**2) * g_in]
    return LSTMGates(f, i, o, g, c, slopes)


def lstm_step(
    w: Weights, x: Array, h_prev: Array, c_prev: Array, clip: float | None = None, coupled: bool = False
) -> tuple[Array, Array]:
    """x (B, I), h_prev (B, P) and c_prev (B, H) -> h (B, P), c (B, H)."""
    gates = lstm_gates(w, x, h_prev, c_prev, clip, coupled)
    m = gates.o * np.tanh(gates.c)
    return (m @ w.W_p.T if w.W_p.size else m), gates.c


def lstm_step_grad(
    w: Weights, x: Array, h_prev: Array, c_prev: Array, dh: Array, dc: Array, clip: float | None = None, coupled: bool = False
) -> tuple[Array, tuple[Array, Array], Weights]:
    """The step's inputs, and dh (B, P), dc (B, H) that reach its outputs -> dx (B, I), (dh_prev, dc_prev), d weights."""
    f, i, o, g, c, (f_slope, i_slope, o_slope, g_slope) = lstm_gates(w, x, h_prev, c_prev, clip, coupled)
    tanh_c = np.tanh(c)
    dm, dW_p = (dh @ w.W_p, dh.T @ (o * tanh_c)) if w.W_p.size else (dh, w.W_p)

    # what enters the gates: d f~, d i~, d o~, d g~
    do = dm * tanh_c * o_slope
    dc = dc + dm * o * (1 - tanh_c**2)
    if w.peephole.size:
        p_f, p_i, p_o = np.split(w.peephole, 3)
        dc = dc + do * p_o
    df = dc * c_prev
    di = dc * g
    if coupled:
        df, di = np.zeros_like(df), di - df
    df = df * f_slope
    di = di * i_slope
    dg = dc * i * g_slope
    dc_prev = dc * f
    dp = w.peephole
    if w.peephole.size:
        dc_prev = dc_prev + df * p_f + di * p_i
        dp = np.concatenate([(df * c_prev).sum(axis=0), (di * c_prev).sum(axis=0), (do * c).sum(axis=0)])

    da = np.concatenate([df, di, do, dg], axis=1)  # (B, 4*H)
    dw = Weights(da.T @ x, da.T @ h_prev, da.sum(axis=0), np.zeros_like(w.b_hn), dW_p, dp)
    return da @ w.W_x, (da @ w.W_h, dc_prev), dw


# GRU, reset before: r scales h_prev, then W_hn multiplies it


def gru_zr(w: Weights, x: Array, h_prev: Array, clip: float | None) -> tuple[Array, Array, Array]:
    """x (B, I), h_prev (B, H) -> z, r, each (B, H), and their slopes by what enters them (B, 2*H); both forms of the GRU have
    them in common."""
    H = w.W_h.shape[1]
    a = h_prev @ w.W_h[: 2 * H].T + x @ w.W_x[: 2 * H].T + w.b[: 2 * H]
    zr = sigmoid(clipped(a, clip))
    return zr[:, :H], zr[:, H:], zr * (1 - zr) * inside(a, clip)


def gru_blend_grad(z: Array, n: Array, h_prev: Array, dh: Array, slope: Array) -> tuple[Array, Array]:
    """h = (1 - z) h_prev + z n, the end of both forms: dh (B, H) -> dz, and d n~ by `slope`, that of n by what enters it."""
    return dh * (n - h_prev), dh * z * slope


def gru_step(w: Weights, x: Array, h_prev: Array, clip: float | None = None) -> tuple[Array]:
    """x (B, I), h_prev (B, H) -> (h,), (B, H)."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r, _ = gru_zr(w, x, h_prev, clip)
    n = np.tanh(clipped((r * h_prev) @ W_hn.T + x @ W_xn.T + b_n, clip))
    return ((1 - z) * h_prev + z * n,)


def gru_step_grad(
    w: Weights, x: Array, h_prev: Array, dh: Array, clip: float | None = None
) -> tuple[Array, tuple[Array], Weights]:
    """The step's inputs, and dh (B, H) that reaches its output -> dx (B, I), (dh_prev,), d weights."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r, slope = gru_zr(w, x, h_prev, clip)
    s = r * h_prev
    a_n = s @ W_hn.T + x @ W_xn.T + b_n
    n = np.tanh(clipped(a_n, clip))

    dz, da_n = gru_blend_grad(z, n, h_prev, dh, (1 - n**2) * inside(a_n, clip))
    ds = da_n @ W_hn
    dr = ds * h_prev
    da_zr = np.concatenate([dz, dr], axis=1) * slope
    dh_prev = dh * (1 - z) + ds * r + da_zr @ w.W_h[: 2 * H]

    da = np.concatenate([da_zr, da_n], axis=1)  # d [z~; r~; n~], (B, 3*H)
    dW_h = np.concatenate([da_zr.T @ h_prev, da_n.T @ s])
    dw = Weights(W_x=da.T @ x, W_h=dW_h, b=da.sum(axis=0), b_hn=np.zeros_like(w.b_hn))
    return da @ w.W_x, (dh_prev,), dw


# GRU, reset after: W_hn multiplies h_prev, then r scales the product


def gru_after_step(w: Weights, x: Array, h_prev: Array, clip: float | None = None) -> tuple[Array]:
    """x (B, I), h_prev (B, H) -> (h,), (B, H)."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r, _ = gru_zr(w, x, h_prev, clip)
    n = np.tanh(clipped(r * (h_prev @ W_hn.T + w.b_hn) + x @ W_xn.T + b_n, clip))
    return ((1 - z) * h_prev + z * n,)


def gru_after_step_grad(
    w: Weights, x: Array, h_prev: Array, dh: Array, clip: float | None = None
) -> tuple[Array, tuple[Array], Weights]:
    """The step's inputs, and dh (B, H) that reaches its output -> dx (B, I), (dh_prev,), d weights."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r, slope = gru_zr(w, x, h_prev, clip)
    s = h_prev @ W_hn.T + w.b_hn
    a_n = r * s + x @ W_xn.T + b_n
    n = np.tanh(clipped(a_n, clip))

    dz, da_n = gru_blend_grad(z, n, h_prev, dh, (1 - n**2) * inside(a_n, clip))
    ds = da_n * r
    dr = da_n * s
    da_zr = np.concatenate([dz, dr], axis=1) * slope
    dh_prev = dh * (1 - z) + ds @ W_hn + da_zr @ w.W_h[: 2 * H]

    da = np.concatenate([da_zr, da_n], axis=1)  # d [z~; r~; n~], (B, 3*H)
    dW_h = np.concatenate([da_zr, ds], axis=1).T @ h_prev
    dw = Weights(W_x=da.T @ x, W_h=dW_h, b=da.sum(axis=0), b_hn=ds.sum(axis=0))
    return da @ w.W_x, (dh_prev,), dw


class Cell(NamedTuple):
    gates: int
    states: int  # 2: h and c; 1: h
    step: Callable[..., tuple[Array, ...]]
    step_grad: Callable[..., tuple[Array, tuple[Array, ...], Weights]]


CELLS = {
    "lstm": Cell(4, 2, lstm_step, lstm_step_grad),
    "gru": Cell(3, 1, gru_step, gru_step_grad),
    "gru_after": Cell(3, 1, gru_after_step, gru_after_step_grad),
}


class Options(NamedTuple):
    """Options that change an LSTM's equations or, the clip alone, a GRU's."""

    proj_size: int = 0
    peepholes: bool = False
    clip: float | None = None
    input_forget: bool = False

    def applied(self, name: str) -> Cell:
        """The cell with them."""
        cell = CELLS[name]
        given: dict[str, Any] = {"clip": self.clip}
        if name == "lstm":
            given["coupled"] = self.input_forget
        else:
            assert self._replace(clip=None) == Options(), "a GRU has a clip only"
        return cell._replace(step=partial(cell.step, **given), step_grad=partial(cell.step_grad, **given))
