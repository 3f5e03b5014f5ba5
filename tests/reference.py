"""The equations of LSTM and GRU layers and their exact gradients in NumPy float64: slow and obviously right.

Notation, in shapes and names:
    T steps    B rows (batch)    I input size    H hidden size    D directions    L layers
    P units of h in a projected LSTM, H in any other layer
    G gates: 4 in an LSTM, in the order f, i, o, g; 3 in a GRU, in the order z, r, n
    a~ is what enters a gate's sigma or tanh; da is the gradient of the loss with respect to a

An array of rows is (B, size), so the product W x of the literature reads `x @ W.T` here, and W^T d reads `d @ W`.
z is how much of the NEW value enters: h = (1 - z) * h_prev + z * n.

A cell is two functions, `*_step` and `*_step_grad`. Something that changes a cell's equations goes there, its
arrays go into `Weights`; what stands below the cells knows only steps, rows, directions and layers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Lengths = npt.NDArray[np.intp]
State = Array | tuple[Array, Array]  # h (L*D, B, H) of a GRU; (h, c) of an LSTM


class Weights(NamedTuple):
    """The weights of one layer in one direction, or their gradients."""

    W_x: Array  # (G*H, I)
    W_h: Array  # (G*H, P)
    b: Array  # (G*H,)
    b_hn: Array  # (H,), used by the reset-after GRU only
    W_p: Array = np.zeros((0, 0))  # (P, H), used by the projected LSTM only
    peephole: Array = np.zeros(0)  # (3*H,), used by the LSTM with peepholes only


class Gradients(NamedTuple):
    x: Array  # (T, B, I)
    state: State
    params: dict[str, Array]


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

    dz = dh * (n - h_prev)
    dn = dh * z
    da_n = dn * (1 - n**2) * inside(a_n, clip)
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

    dz = dh * (n - h_prev)
    dn = dh * z
    da_n = dn * (1 - n**2) * inside(a_n, clip)
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
    """What changes an LSTM's equations or, the clip alone, a GRU's."""

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
    W_p = np.asarray(params.get(prefix + "W_p", np.zeros((0, 0))), np.float64)
    peephole = np.asarray(params.get(prefix + "peephole", np.zeros(0)), np.float64)
    return Weights(W_x, W_h, b, b_hn, W_p, peephole)


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
    GH, P = np.shape(params[f"layers.0.{directions[0]}W_h"])
    sizes = [P, GH // cell.gates][: cell.states]
    last = [np.zeros((num_layers * len(directions), len(lengths), size)) for size in sizes]
    first = _given(state, last)

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
    **options: Any,
) -> tuple[Array, State]:
    """What a layer gives: y (T, B, D*P), and the state after each row's last valid step, h_n or (h_n, c_n).

    cell is "lstm", "gru" (reset before) or "gru_after"; params is keyed like `layer.params`, without b or b_hn they are
    zeros; x (T, B, I); state h_0 (L*D, B, P) or (h_0, c_0), c_0 (L*D, B, H), None for zeros; lengths (B,), None for T
    everywhere; options as in `Options`.
    """
    T, B = np.shape(x)[:2]
    directions = _directions(bidirectional, reverse)
    y, last, _ = _run(Options(**options).applied(cell), params, x, state, _lengths(lengths, T, B), num_layers, directions)
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
    **options: Any,
) -> Gradients:
    """The exact gradients of sum(dy * y) + sum(dstate * state_n), for the y and state_n of `forward`.

    dy (T, B, D*P) and dstate, in the form of the state, are zeros when None; the rest is as in `forward`.
    """
    T, B = np.shape(x)[:2]
    n = _lengths(lengths, T, B)
    kind = Options(**options).applied(cell)
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
    **options: Any,
) -> dict[str, npt.NDArray[Any]]:
    """Parameters keyed and shaped like `layer.params`, uniform in +-1/sqrt(H) as in PyTorch; options as in `Options`."""
    chosen = Options(**options)
    outputs = chosen.proj_size or hidden_size
    rng = np.random.default_rng(seed)
    directions = _directions(bidirectional, reverse)
    GH = CELLS[cell].gates * hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for l in range(num_layers):
        for direction in directions:
            prefix = f"layers.{l}.{direction}"
            shapes[prefix + "W_x"] = (GH, len(directions) * outputs if l else input_size)
            shapes[prefix + "W_h"] = (GH, outputs)
            if bias:
                shapes[prefix + "b"] = (GH,)
            if bias and cell == "gru_after":
                shapes[prefix + "b_hn"] = (hidden_size,)
            if chosen.proj_size:
                shapes[prefix + "W_p"] = (outputs, hidden_size)
            if chosen.peepholes:
                shapes[prefix + "peephole"] = (3 * hidden_size,)
    bound = hidden_size**-0.5
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}
