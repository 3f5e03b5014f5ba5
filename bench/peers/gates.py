"""A case's weights as another library has them, in the gate orders of gpurnn's own converters.

A wrong order cannot pass unseen: every peer's answers are compared with the float64 loop of `numpy.py` before they are timed.
"""

from __future__ import annotations

import numpy as np

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from gpurnn.convert.gates import Kind, Order, Source, ours, undo


def _kind(case: Case) -> Kind:
    return "LSTM" if case.cell == "lstm" else "GRU"


def theirs(case: Case, weights: Arrays, order: Order) -> Source:
    """The weights for a library with two biases: the second is zeros but for a reset-after GRU's candidate."""
    no_second = {"b_hn": np.zeros(case.hidden, np.float32)} if case.cell == "gru" else {}
    return undo(_kind(case), order, {**weights, **no_second})


def in_our_order(case: Case, rows: F32, order: Order) -> F32:
    """Weights (G*H, ...), or their gradients, out of a library's order."""
    return ours(_kind(case), order, rows)
