"""LSTM and GRU layers and their exact gradients in NumPy float64, slow and obviously right: the cells of `reference_cells.py`,
which has the notation, over steps, rows, directions and layers.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from reference_cells import CELLS, Array, Cell, Options, Weights

Lengths = npt.NDArray[np.intp]
State = Array | tuple[Array, Array]  # h (L*D, B, H) of a GRU; (h, c) of an LSTM


class Gradients(NamedTuple):
    x: Array  # (T, B, I)
    state: State
    params: dict[str, Array]


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
    """From what `sequence` took and gave, dy (T, B, H), dstate (B, H) each -> dx (T, B, I), d initial state, d weights."""
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
    """A record of one layer in one direction."""

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
    """A layer's results: y (T, B, D*P), and the state after each row's last valid step, h_n or (h_n, c_n).

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
