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
Layers = tuple[tuple[Arrays, ...], ...]  # the weights of all layers, a tuple of directions each
SEED = 20
LATER = 4  # h is smaller than x: else the outputs of a stack were its biases' alone, and wrong layers unseen


def weights(case: Case, variant: int = 0, layer: int = 0, direction: int = 0) -> Arrays:
    """W_x (G*H, I), W_h (G*H, H), b (G*H,) and, for `gru-after`, b_hn (H,): uniform in +-1/sqrt(H), and `LATER` times that the
    W_x of later layers.

    `variant` draws other values of the same shapes.
    """
    G, H, I = case.gates, case.hidden, case.layer_inputs[layer]
    place = [layer, direction] if layer or direction else []
    rng = np.random.default_rng([SEED, variant, G, H, I, *place])
    shapes: dict[str, tuple[int, ...]] = {"W_x": (G * H, I), "W_h": (G * H, H), "b": (G * H,)}
    if case.cell == "gru-after":
        shapes["b_hn"] = (H,)
    bounds = dict.fromkeys(shapes, H**-0.5)
    if layer:
        bounds["W_x"] *= LATER
    return {name: rng.uniform(-bounds[name], bounds[name], shape).astype(np.float32) for name, shape in shapes.items()}


def all_weights(case: Case) -> Layers:
    """The weights of all layers and directions."""
    return tuple(
        tuple(weights(case, layer=layer, direction=direction) for direction in range(case.directions))
        for layer in range(case.layers)
    )


def stacks(case: Case, weights: Layers) -> list[Layers]:
    """The layers that one layer object can hold: all, or each alone where they run in turn of direction."""
    return [weights[k : k + 1] for k in range(case.layers)] if case.in_turn else [weights]


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
