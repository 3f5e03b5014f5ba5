"""Gate orders: from gpurnn's layout to another library's, and back.

An order is written as letters, gpurnn's being `fiog` (LSTM; g is the candidate) and `zrn` (GRU; n is the candidate).
In gpurnn z is how much of the new value enters; every peer here has it the other way round, and since
sigma(-a) = 1 - sigma(a), the rows of z change sign both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays


@dataclass(frozen=True)
class Reordered:
    """Weights of a library with two biases."""

    W_x: F32  # (G*H, I)
    W_h: F32  # (G*H, H)
    b_x: F32  # (G*H,)
    b_h: F32  # (G*H,) zeros but for the candidate's rows of a reset-after GRU


def _own_order(case: Case) -> str:
    return "fiog" if case.cell == "lstm" else "zrn"


def _permute(rows: F32, source: str, target: str) -> F32:
    blocks = dict(zip(source, np.split(rows, len(source)), strict=True))
    return np.concatenate([-blocks[gate] if gate == "z" else blocks[gate] for gate in target])


def to_order(case: Case, weights: Arrays, order: str) -> Reordered:
    """gpurnn's weights with their blocks of rows in `order`."""
    own, H = _own_order(case), case.hidden
    b_h = np.zeros(case.gates * H, np.float32)
    if "b_hn" in weights:
        n = order.index("n")
        b_h[n * H : (n + 1) * H] = weights["b_hn"]
    W_x, W_h, b_x = (_permute(weights[name], own, order) for name in ("W_x", "W_h", "b"))
    return Reordered(W_x, W_h, b_x, b_h)


def from_order(case: Case, rows: F32, order: str) -> F32:
    """Weights, or gradients of weights, whose blocks of rows are in `order`, in gpurnn's order."""
    return _permute(rows, order, _own_order(case))
