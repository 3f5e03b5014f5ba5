"""The same weights and input for every implementation, from the case alone.

Weights are in gpurnn's layout: LSTM rows f, i, o, g; GRU rows z, r, n.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bench.harness.cases import Case

F32 = npt.NDArray[np.float32]
Arrays = dict[str, F32]
SEED = 20


def weights(case: Case, variant: int = 0) -> Arrays:
    """W_x (G*H, I), W_h (G*H, H), b (G*H,) and, for `gru-after`, b_hn (H,): uniform in +-1/sqrt(H).

    `variant` draws other values of the same shapes.
    """
    G, H, I = case.gates, case.hidden, case.input
    rng = np.random.default_rng([SEED, variant, G, H, I])
    shapes: dict[str, tuple[int, ...]] = {"W_x": (G * H, I), "W_h": (G * H, H), "b": (G * H,)}
    if case.cell == "gru-after":
        shapes["b_hn"] = (H,)
    bound = H**-0.5
    return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}


def sequence(case: Case) -> F32:
    """x (T, B, I), normal."""
    rng = np.random.default_rng([SEED, case.seq, case.batch, case.input])
    return rng.standard_normal((case.seq, case.batch, case.input), dtype=np.float32)


def output_gradient(case: Case) -> F32:
    """dy (T, B, H), normal: what reaches the layer's output in a training step."""
    rng = np.random.default_rng([SEED + 1, case.seq, case.batch, case.hidden])
    return rng.standard_normal((case.seq, case.batch, case.hidden), dtype=np.float32)


def stack(rows: Iterable[F32]) -> F32:
    """(steps, B, H); each row is copied when it comes, since its owner may write over it."""
    return np.stack([row.copy() for row in rows])
