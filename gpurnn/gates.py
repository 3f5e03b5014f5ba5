"""Weights of other frameworks as gpurnn's and back: the order of the gates, the sense of z, one bias or two.

Rows of gates are (G*H, ...), one gate below the other. Gates are letters here: f, i, o, g of an LSTM; z, r, n of a GRU.
Elsewhere z is how much of the OLD value stays, here how much of the new one enters: its rows change sign, since
sigma(-a) = 1 - sigma(a).
"""

from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.quantised import Quantised
from gpurnn_kernels.spec import Array

from .layers.description import Kind as Kind


class Order(NamedTuple):
    """A framework's gates, from top to bottom."""

    lstm: str
    gru: str

    def of(self, kind: Kind) -> str:
        """The order of one kind of layer."""
        return self.lstm if kind == "LSTM" else self.gru


OURS = Order("fiog", "zrn")
TORCH = Order("ifgo", "rzn")
KERAS = Order("ifgo", "zrn")
ONNX = Order("iofg", "zrn")
ONNX_PEEPHOLES, OUR_PEEPHOLES = "iof", "fio"


def reorder(rows: Array, order: str, wanted: str) -> Array:
    """Gives rows (G*H, ...) with the gates in another order."""
    parts = dict(zip(order, np.split(rows, len(order)), strict=True))
    return np.concatenate([parts[gate] for gate in wanted])


def _matrix(kind: Kind, order: Order, rows: Array | Quantised) -> Array | Quantised:
    """Gives a matrix as `ours` does. Of integers the scales change sign: -128 has no opposite in 8 bits."""
    if isinstance(rows, Quantised):
        return Quantised(reorder(rows.values, order.of(kind), OURS.of(kind)), ours(kind, order, rows.scales))
    return ours(kind, order, rows)


def ours(kind: Kind, order: Order, rows: Array) -> Array:
    """Gives rows (G*H, ...) of a framework whose z keeps the old value as gpurnn has them."""
    return _signed(kind, reorder(rows, order.of(kind), OURS.of(kind)))


def theirs(kind: Kind, order: Order, rows: Array) -> Array:
    """Gives gpurnn's rows (G*H, ...) as a framework whose z keeps the old value has them."""
    return reorder(_signed(kind, rows), OURS.of(kind), order.of(kind))


def _signed(kind: Kind, rows: Array) -> Array:
    """Gives a copy in which z has the other sense; an LSTM has no z."""
    signed = rows.copy()
    if kind == "GRU":
        z = signed[: len(rows) // 3]
        np.negative(z, out=z)
    return signed


class Source(NamedTuple):
    """One direction of a framework's layer, the gates in the framework's order."""

    W_x: Any  # (G*H, I), an array or quantised
    W_h: Any  # (G*H, H), or (G*H, P)
    b_x: Array | None = None  # (G*H,), beside W_x
    b_h: Array | None = None  # (G*H,), beside W_h
    W_p: Array | None = None  # (P, H)
    peephole: Array | None = None  # (3*H,), in gpurnn's order


@np.errstate(all="ignore")
def direction(kind: Kind, order: Order, source: Source, reset_after: bool = False) -> dict[str, Any]:
    """Gives the parameters of one direction by gpurnn's names without a prefix; biases that always meet are summed."""
    found: dict[str, Any] = {"W_x": _matrix(kind, order, source.W_x), "W_h": _matrix(kind, order, source.W_h)}
    if source.b_x is not None:
        b = ours(kind, order, source.b_x)
        b_h = None if source.b_h is None else ours(kind, order, source.b_h)
        if reset_after:
            hidden = len(b) // 3
            if b_h is None:
                b_h = np.zeros_like(b)
            # inside the reset gate: n's two biases never meet
            b[: 2 * hidden] += b_h[: 2 * hidden]
            found |= {"b": b, "b_hn": b_h[2 * hidden :].copy()}
        else:
            found["b"] = b if b_h is None else b + b_h
    if source.W_p is not None:
        found["W_p"] = source.W_p.copy()
    if source.peephole is not None:
        found["peephole"] = source.peephole.copy()
    return found


@np.errstate(all="ignore")
def undo(kind: Kind, order: Order, params: dict[str, Array], gradients: bool = False) -> Source:
    """Gives a direction's parameters as a framework with two biases has them, GRUs reset-after; or their gradients.

    All of a summed bias goes beside W_x and 0 beside W_h; the gradient of a sum goes to both.
    """
    b_x = b_h = None
    if "b" in params:
        b = params["b"]
        other = b.copy() if gradients else np.zeros_like(b)
        if kind == "GRU":
            other[2 * len(b) // 3 :] = params["b_hn"]
        b_x, b_h = theirs(kind, order, b), theirs(kind, order, other)
    W_x, W_h = theirs(kind, order, params["W_x"]), theirs(kind, order, params["W_h"])
    return Source(W_x, W_h, b_x, b_h, params["W_p"].copy() if "W_p" in params else None)
