"""The equations of LSTM and GRU layers and their exact gradients in NumPy float64: slow and obviously right.

Notation, in shapes and names:
    T steps    B rows (batch)    I input size    H hidden size    D directions    L layers
    G gates: 4 in an LSTM, in the order f, i, o, g; 3 in a GRU, in the order z, r, n
    a~ is what enters a gate's sigma or tanh; da is the gradient of the loss with respect to a

An array of rows is (B, size), so the product W x of the literature reads `x @ W.T` here, and W^T d reads `d @ W`.
z is how much of the NEW value enters: h = (1 - z) * h_prev + z * n.

A cell is two functions, `*_step` and `*_step_grad`. Something that changes a cell's equations goes there, its
arrays go into `Weights`; what stands below the cells knows only steps, rows, directions and layers.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Lengths = npt.NDArray[np.intp]
State = Array | tuple[Array, Array]  # h (L*D, B, H) of a GRU; (h, c) of an LSTM


class Weights(NamedTuple):
    """The weights of one layer in one direction, or their gradients."""

    W_x: Array  # (G*H, I)
    W_h: Array  # (G*H, H)
    b: Array  # (G*H,)
    b_hn: Array  # (H,), used by the reset-after GRU only


class Gradients(NamedTuple):
    x: Array  # (T, B, I)
    state: State
    params: dict[str, Array]


def sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))  # neither overflows nor cancels
    return np.where(a >= 0, 1.0, e) / (1.0 + e)


# LSTM


def lstm_gates(w: Weights, x: Array, h_prev: Array) -> tuple[Array, Array, Array, Array]:
    """x (B, I), h_prev (B, H) -> f, i, o, g, each (B, H)."""
    f, i, o, g = np.split(h_prev @ w.W_h.T + x @ w.W_x.T + w.b, 4, axis=1)
    return sigmoid(f), sigmoid(i), sigmoid(o), np.tanh(g)


def lstm_step(w: Weights, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
    """x (B, I), h_prev and c_prev (B, H) -> h, c, each (B, H)."""
    f, i, o, g = lstm_gates(w, x, h_prev)
    c = f * c_prev + i * g
    h = o * np.tanh(c)
    return h, c


def lstm_step_grad(
    w: Weights, x: Array, h_prev: Array, c_prev: Array, dh: Array, dc: Array
) -> tuple[Array, tuple[Array, Array], Weights]:
    """The step's inputs, and dh, dc (B, H) that reach its outputs -> dx (B, I), (dh_prev, dc_prev), d weights."""
    f, i, o, g = lstm_gates(w, x, h_prev)
    tanh_c = np.tanh(f * c_prev + i * g)

    do = dh * tanh_c
    dc = dc + dh * o * (1 - tanh_c**2)
    df = dc * c_prev
    di = dc * g
    dg = dc * i
    dc_prev = dc * f

    # d [f~; i~; o~; g~], (B, 4*H)
    da = np.concatenate([df * f * (1 - f), di * i * (1 - i), do * o * (1 - o), dg * (1 - g**2)], axis=1)
    dw = Weights(W_x=da.T @ x, W_h=da.T @ h_prev, b=da.sum(axis=0), b_hn=np.zeros_like(w.b_hn))
    return da @ w.W_x, (da @ w.W_h, dc_prev), dw


# GRU, reset before: r scales h_prev, then W_hn multiplies it


def gru_zr(w: Weights, x: Array, h_prev: Array) -> tuple[Array, Array]:
    """x (B, I), h_prev (B, H) -> z, r, each (B, H); both forms of the GRU have them in common."""
    H = w.W_h.shape[1]
    z, r = np.split(sigmoid(h_prev @ w.W_h[: 2 * H].T + x @ w.W_x[: 2 * H].T + w.b[: 2 * H]), 2, axis=1)
    return z, r


def gru_step(w: Weights, x: Array, h_prev: Array) -> tuple[Array]:
    """x (B, I), h_prev (B, H) -> (h,), (B, H)."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r = gru_zr(w, x, h_prev)
    n = np.tanh((r * h_prev) @ W_hn.T + x @ W_xn.T + b_n)
    return ((1 - z) * h_prev + z * n,)


def gru_step_grad(w: Weights, x: Array, h_prev: Array, dh: Array) -> tuple[Array, tuple[Array], Weights]:
    """The step's inputs, and dh (B, H) that reaches its output -> dx (B, I), (dh_prev,), d weights."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r = gru_zr(w, x, h_prev)
    s = r * h_prev
    n = np.tanh(s @ W_hn.T + x @ W_xn.T + b_n)

    dz = dh * (n - h_prev)
    dn = dh * z
    da_n = dn * (1 - n**2)
    ds = da_n @ W_hn
    dr = ds * h_prev
    da_zr = np.concatenate([dz * z * (1 - z), dr * r * (1 - r)], axis=1)
    dh_prev = dh * (1 - z) + ds * r + da_zr @ w.W_h[: 2 * H]

    da = np.concatenate([da_zr, da_n], axis=1)  # d [z~; r~; n~], (B, 3*H)
    dW_h = np.concatenate([da_zr.T @ h_prev, da_n.T @ s])
    dw = Weights(W_x=da.T @ x, W_h=dW_h, b=da.sum(axis=0), b_hn=np.zeros_like(w.b_hn))
    return da @ w.W_x, (dh_prev,), dw


# GRU, reset after: W_hn multiplies h_prev, then r scales the product


def gru_after_step(w: Weights, x: Array, h_prev: Array) -> tuple[Array]:
    """x (B, I), h_prev (B, H) -> (h,), (B, H)."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r = gru_zr(w, x, h_prev)
    n = np.tanh(r * (h_prev @ W_hn.T + w.b_hn) + x @ W_xn.T + b_n)
    return ((1 - z) * h_prev + z * n,)


def gru_after_step_grad(w: Weights, x: Array, h_prev: Array, dh: Array) -> tuple[Array, tuple[Array], Weights]:
    """The step's inputs, and dh (B, H) that reaches its output -> dx (B, I), (dh_prev,), d weights."""
    H = w.W_h.shape[1]
    W_xn, W_hn, b_n = w.W_x[2 * H :], w.W_h[2 * H :], w.b[2 * H :]
    z, r = gru_zr(w, x, h_prev)
    s = h_prev @ W_hn.T + w.b_hn
    n = np.tanh(r * s + x @ W_xn.T + b_n)

    dz = dh * (n - h_prev)
    dn = dh * z
    da_n = dn * (1 - n**2)
    ds = da_n * r
    dr = da_n * s
    da_zr = np.concatenate([dz * z * (1 - z), dr * r * (1 - r)], axis=1)
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


# One layer in one direction, forward in time


def sequence(cell: Cell, w: Weights, x: Array, state: tuple[Array, ...], lengths: Lengths) -> list[Array]:
    """x (T, B, I), state of (B, H) each -> h (and c) before, between and after the steps, (T+1, B, H) each."""
    T = x.shape[0]
    track = [np.stack([s] * (T + 1)) for s in state]
    for t in range(T):
        live = lengths > t
        new = cell.step(w, x[t, live], *(s[t, live] for s in track))
        for s, s_new in zip(track, new, strict=True):
            s[t + 1] = s[t]  # a row past its length keeps its state
            s[t + 1, live] = s_new
    return track


def sequence_grad(
    cell: Cell,
    w: Weights,
    x: Array,
    track: list[Array],
    lengths: Lengths,
    dy: Array,
    dstate: tuple[Array, ...],
) -> tuple[Array, tuple[Array, ...], Weights]:
    """What `sequence` took and gave, dy (T, B, H), dstate (B, H) each -> dx (T, B, I), d initial state, d weights."""
    dx = np.zeros_like(x)
    dw = Weights(*map(np.zeros_like, w))
    dstate = tuple(d.copy() for d in dstate)
    for t in reversed(range(x.shape[0])):
        live = lengths > t
        dstate[0][live] += dy[t, live]
        dx[t, live], d_prev, dw_t = cell.step_grad(w, x[t, live], *(s[t, live] for s in track), *(d[live] for d in dstate))
        for d, d_new in zip(dstate, d_prev, strict=True):
            d[live] = d_new
        dw = Weights(*(a + b for a, b in zip(dw, dw_t, strict=True)))
    return dx, dstate, dw


def masked(x: Array, lengths: Lengths) -> Array:
    """x (T, B, size) with zeros past each row's length."""
    out = np.zeros_like(x)
    for b, n in enumerate(lengths):
        out[:n, b] = x[:n, b]
    return out


def flipped(x: Array, lengths: Lengths) -> Array:
    """x (T, B, size) with each row's valid steps in reverse order and zeros past them: its own inverse."""
    out = np.zeros_like(x)
    for b, n in enumerate(lengths):
        out[:n, b] = x[:n, b][::-1]
    return out


# Layers and directions


class Pass(NamedTuple):
    """What one layer did in one direction."""

    prefix: str  # of its names in params
    in_order: Callable[[Array, Lengths], Array]  # puts steps into the direction's order, and back
    w: Weights
    x: Array
    track: list[Array]


def _weights(cell: Cell, params: Mapping[str, npt.ArrayLike], prefix: str) -> Weights:
    W_x = np.asarray(params[prefix + "W_x"], np.float64)
    W_h = np.asarray(params[prefix + "W_h"], np.float64)
    b = np.asarray(params.get(prefix + "b", np.zeros(len(W_h))), np.float64)
    b_hn = np.asarray(params.get(prefix + "b_hn", np.zeros(len(W_h) // cell.gates)), np.float64)
    return Weights(W_x, W_h, b, b_hn)


def _directions(bidirectional: bool, reverse: bool) -> list[str]:
    if bidirectional and reverse:
        raise ValueError("bidirectional and reverse exclude each other")
    if bidirectional:
        return ["", "reverse."]
    return ["reverse."] if reverse else [""]


def parts(state: State) -> list[Array]:
    """(h, c) -> [h, c], h -> [h]."""
    return list(state) if isinstance(state, tuple) else [state]


def packed(parts: list[Array]) -> State:
    """The inverse of `parts`."""
    return (parts[0], parts[1]) if len(parts) == 2 else parts[0]


def _given(state: State | None, like: list[Array]) -> list[Array]:
    """The parts of a state, zeros for None."""
    if state is None:
        return [np.zeros_like(s) for s in like]
    given = [np.asarray(s, np.float64) for s in parts(state)]
    assert [s.shape for s in given] == [s.shape for s in like]
    return given


def _lengths(lengths: npt.ArrayLike | None, T: int, B: int) -> Lengths:
    n = np.full(B, T) if lengths is None else np.asarray(lengths)
    assert n.shape == (B,)
    assert np.all((n >= 0) & (n <= T))
    return n.astype(np.intp)


def _run(
    cell: Cell,
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: State | None,
    lengths: Lengths,
    num_layers: int,
    directions: list[str],
) -> tuple[Array, list[Array], list[list[Pass]]]:
    """Every layer in turn -> y (T, B, D*H), the last state as a list, and the passes as [layer][direction]."""
    H = len(np.asarray(params[f"layers.0.{directions[0]}W_h"])) // cell.gates
    rows = (num_layers * len(directions), len(lengths), H)
    first = _given(state, [np.zeros(rows)] * cell.states)
    last = [np.zeros(rows) for _ in first]

    y = masked(np.asarray(x, np.float64), lengths)
    layers: list[list[Pass]] = []
    for l in range(num_layers):
        passes = []
        outputs = []
        for d, direction in enumerate(directions):
            row = l * len(directions) + d
            prefix = f"layers.{l}.{direction}"
            in_order = flipped if direction else masked
            w = _weights(cell, params, prefix)
            x_d = in_order(y, lengths)
            track = sequence(cell, w, x_d, tuple(s[row] for s in first), lengths)
            for s_n, s in zip(last, track, strict=True):
                s_n[row] = s[-1]
            outputs.append(in_order(track[0][1:], lengths))
            passes.append(Pass(prefix, in_order, w, x_d, track))
        y = np.concatenate(outputs, axis=2)
        layers.append(passes)
    return y, last, layers


def forward(
    cell: str,
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: State | None = None,
    lengths: npt.ArrayLike | None = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
) -> tuple[Array, State]:
    """What a layer gives: y (T, B, D*H), and the state after each row's last valid step, h_n or (h_n, c_n).

    cell is "lstm", "gru" (reset before) or "gru_after"; params is keyed like `layer.params`, without b or b_hn they are
    zeros; x (T, B, I); state h_0 or (h_0, c_0), each (L*D, B, H), None for zeros; lengths (B,), None for T everywhere.
    """
    T, B = np.shape(x)[:2]
    directions = _directions(bidirectional, reverse)
    y, last, _ = _run(CELLS[cell], params, x, state, _lengths(lengths, T, B), num_layers, directions)
    return y, packed(last)


def gradients(
    cell: str,
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    dy: npt.ArrayLike | None,
    dstate: State | None = None,
    state: State | None = None,
    lengths: npt.ArrayLike | None = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
) -> Gradients:
    """The exact gradients of sum(dy * y) + sum(dstate * state_n), for the y and state_n of `forward`.

    dy (T, B, D*H) and dstate, in the form of the state, are zeros when None; the rest is as in `forward`.
    """
    T, B = np.shape(x)[:2]
    n = _lengths(lengths, T, B)
    kind = CELLS[cell]
    y, last, layers = _run(kind, params, x, state, n, num_layers, _directions(bidirectional, reverse))
    d_last = _given(dstate, last)
    d_first = [np.zeros_like(s) for s in last]
    d_params: dict[str, Array] = {}

    d_out = np.zeros_like(y) if dy is None else np.asarray(dy, np.float64)
    assert d_out.shape == y.shape
    for l, passes in reversed(list(enumerate(layers))):
        d_in = np.zeros_like(passes[0].x)
        for d, (p, d_out_d) in enumerate(zip(passes, np.split(d_out, len(passes), axis=2), strict=True)):
            row = l * len(passes) + d
            dx, d_state, dw = sequence_grad(kind, p.w, p.x, p.track, n, p.in_order(d_out_d, n), tuple(s[row] for s in d_last))
            d_in += p.in_order(dx, n)
            for s, s_row in zip(d_first, d_state, strict=True):
                s[row] = s_row
            d_params |= {p.prefix + name: value for name, value in dw._asdict().items()}
        d_out = d_in
    return Gradients(d_out, packed(d_first), {name: d_params[name] for name in params})


def random_params(
    cell: str,
    input_size: int,
    hidden_size: int,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
    bias: bool = True,
    dtype: npt.DTypeLike = np.float64,
    seed: int = 0,
) -> dict[str, npt.NDArray[Any]]:
    """Parameters keyed and shaped like `layer.params`, uniform in +-1/sqrt(H) as in PyTorch."""
    rng = np.random.default_rng(seed)
    directions = _directions(bidirectional, reverse)
    GH = CELLS[cell].gates * hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for l in range(num_layers):
        for direction in directions:
            prefix = f"layers.{l}.{direction}"
            shapes[prefix + "W_x"] = (GH, len(directions) * hidden_size if l else input_size)
            shapes[prefix + "W_h"] = (GH, hidden_size)
            if bias:
                shapes[prefix + "b"] = (GH,)
            if bias and cell == "gru_after":
                shapes[prefix + "b_hn"] = (hidden_size,)
    bound = hidden_size**-0.5
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}
