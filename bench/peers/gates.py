"""A case's weights as another library has them, in the gate orders of gpurnn's own converters.

A wrong order cannot pass unseen: every peer's answers are compared with the float64 loop of `numpy.py` before they are timed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from gpurnn.gates import Kind, Order, ours, undo


class Weights(NamedTuple):
    """Weights of a library with two biases, in PyTorch's order of arguments."""

    W_x: F32  # (G*H, I)
    W_h: F32  # (G*H, H)
    b_x: F32  # (G*H,)
    b_h: F32  # (G*H,)


def _kind(case: Case) -> Kind:
    return "LSTM" if case.cell == "lstm" else "GRU"


def theirs(case: Case, weights: Arrays, order: Order) -> Weights:
    """The weights for a library with two biases: the second is zeros but for a reset-after GRU's candidate."""
    no_second = {"b_hn": np.zeros(case.hidden, np.float32)} if case.cell == "gru" else {}
    found = undo(_kind(case), order, {**weights, **no_second})
    assert found.b_x is not None
    assert found.b_h is not None
    return Weights(found.W_x, found.W_h, found.b_x, found.b_h)


def in_our_order(case: Case, rows: F32, order: Order) -> F32:
    """Weights (G*H, ...), or their gradients, out of a library's order."""
    return ours(_kind(case), order, rows)
