"""Whole layers: gates against sigma and tanh of their pre-activations, long sequences, infinite states, NaN."""

from typing import Any

import numpy as np
import pytest
from helpers import Floats, Problem, assert_same_bits, leaves, new_layer, row_of
from reference_cells import CELLS
from ulps import ULPS, error_in_ulps, exact

H = 203  # with units left over after whole vectors
# What shows a gate alone: the function of its bias that is seen, and the other gates' biases, f i o g or z r n
HIGH, LOW = 50.0, -800.0
SEEN: dict[str, dict[str, tuple[str, dict[int, float]]]] = {
    "lstm": {
        "f": ("sigmoid", {1: LOW}),
        "i": ("sigmoid", {0: LOW, 3: HIGH}),
        "o": ("sigmoid", {0: HIGH, 1: LOW}),
        "g": ("tanh", {0: LOW, 1: HIGH}),
    },
    "gru": {"z": ("sigmoid", {2: HIGH}), "n": ("tanh", {0: HIGH})},
}
SEEN["gru_after"] = SEEN["gru"]
GATES = [(cell, gate) for cell, gates in SEEN.items() for gate in gates]


def seen(cell: str, gate: str, biases: Floats, state: Any, layer: Any) -> Floats:
    """A gate at biases (H,), with all weights zero, in what one step gives."""
    _, others = SEEN[cell][gate]
    params = {name: np.zeros_like(a) for name, a in layer.params.items()}
    by_gate = params["layers.0.b"].reshape(-1, H)
    for other, bias in others.items():
        by_gate[other] = bias
    by_gate["fiog".index(gate) if cell == "lstm" else "zrn".index(gate)] = biases
    layer.load_params(params)
    _, last = layer(np.zeros((1, 1, 1), biases.dtype), state)
    return (last[0] if gate == "o" else last[1] if cell == "lstm" else last)[0, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "gate"), GATES)
@pytest.mark.parametrize("clip", [None, 1e4])
def test_gates_as_functions_of_their_sums(cell: str, gate: str, dtype: str, clip: float | None) -> None:
    """Within the activations' 4 ulp, whatever a layer does to weights and sums on the way."""
    layer = new_layer(cell, 1, H, dtype=dtype, clip=clip)
    state = np.zeros((1, 1, H), dtype)
    if cell == "lstm":
        state = (state, state + (100 if gate == "o" else 1))
    name = SEEN[cell][gate][0]
    least = -87.3 if dtype == "float32" else -708.3
    for low, high in ((least, -12), (-12, -8), (-8, -4), (-4, -2), (-2, 2), (2, 12)):
        for part in np.linspace(low, high, 4 * H, dtype=dtype).reshape(-1, 4).T:
            error = error_in_ulps(seen(cell, gate, part, state, layer), exact(name, part))
            assert error <= ULPS, f"{error} ulp between {low} and {high}"


def test_c_after_many_steps() -> None:
    """Forget biases of 8 to 10: c holds thousands of steps, and rounding errors cancel."""
    T, units = 20_000, 16
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, 1, 2)).astype(np.float32)
    single = new_layer("lstm", 2, units, seed=0)
    params = {name: a.copy() for name, a in single.params.items()}
    params["layers.0.b"][:units] = np.linspace(8, 10, units)
    single.load_params(params)
    double = new_layer("lstm", 2, units, dtype="float64")
    double.load_params({name: a.astype(np.float64) for name, a in params.items()})
    c, wanted = single(x)[1][1], double(x.astype(np.float64))[1][1]
    assert np.sqrt(np.mean((c - wanted) ** 2)) <= 1e-5 * np.sqrt(np.mean(wanted**2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip", [None, 3.0])
@pytest.mark.parametrize("cell", ["gru", "gru_after"])
def test_an_infinite_state(cell: str, clip: float | None, dtype: str) -> None:
    """(1 - z) h + z n is infinite where h is, but for z = 1."""
    p = Problem(cell, 1, 40, 3, 21, dtype=dtype, clip=clip)
    p.state[0, np.arange(40), np.arange(40) % 21] = np.where(np.arange(40) % 3, np.inf, -np.inf)
    with np.errstate(invalid="ignore"):
        (wanted, _), (found, _) = p.expected(), p.run()
        d_wanted, d_found = p.expected_gradients()["h_0"], p.gradients()["h_0"]
    assert np.isinf(wanted).any()
    np.testing.assert_array_equal(np.where(np.isfinite(found), 0, found), np.where(np.isfinite(wanted), 0, wanted))
    np.testing.assert_array_equal(np.isfinite(d_found), np.isfinite(d_wanted))


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((cell, {}) for cell in CELLS),
    *((cell, {"clip": 3.0}) for cell in CELLS),
    *(("lstm", option) for option in ({"peepholes": True}, {"input_forget": True}, {"proj_size": 11})),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "options"), OPTIONS)
def test_nan_has_the_same_bits_in_every_batch(cell: str, options: dict[str, Any], dtype: str) -> None:
    """NaN of both signs, and those of infinities, in inputs, states and parameters; any of them may be the one to come out."""
    B = 21
    for seed in range(3):
        p = Problem(cell, 3, B, 9, 37, dtype=dtype, seed=seed, **options)
        if "proj_size" in options:
            p.state = (p.state[0][..., : options["proj_size"]].copy(), p.state[1])
        rng = np.random.default_rng(seed)
        for a in (p.x, *leaves(p.state), *p.params.values()):
            spoilt = rng.random(a.shape) < 0.01
            a[spoilt] = rng.choice([np.nan, -np.nan, np.inf, -np.inf], spoilt.sum())
        y, state = p.run()
        assert np.isnan(y).any()
        for rows in (slice(0, 1), slice(1, 3), slice(3, 8), slice(8, 21)):
            assert_same_bits(p.layer(p.x[:, rows], row_of(p.state, rows)), (y[:, rows], row_of(state, rows)))
