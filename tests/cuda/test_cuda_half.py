"""float16 layers, on a device only: weights, inputs and outputs in float16, all sums and an LSTM's c in float32."""

from pathlib import Path

import numpy as np
import pytest
from helpers import (
    LAYERS,
    Backend,
    Launches,
    Problem,
    assert_gradients_near,
    assert_near,
    assert_same_bits,
    leaves,
    new_layer,
)
from reference import packed, parts
from reference_cells import CELLS

import gpurnn

HALF = np.dtype("float16")
# h is rounded to 2**-11 of itself at every step, and so are the gates' gradients
OUTPUTS, GRADIENTS = 2e-3, 2e-3
every_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.mark.usefixtures("stepwise")
@every_cell
@pytest.mark.parametrize("options", ["forward", "both", "stacked-reverse", "batch-first", "no-bias"])
@pytest.mark.parametrize("H", [8, 7])
@pytest.mark.parametrize("lengths", [None, [2, 0, 5]], ids=["full", "ragged"])
def test_against_the_reference(
    cell: str, options: str, H: int, lengths: list[int] | None, device_backend: Backend, launches: Launches
) -> None:
    p = Problem(cell, 5, 3, 4, H, dtype="float16", lengths=lengths, **LAYERS[options])
    y, state = p.run(device_backend)
    assert launches.named(f"float16_h{H}_x{4 if H == 8 else 1}")
    assert_near((y, state), p.expected(), OUTPUTS)
    gradients = p.gradients(device_backend)
    assert_gradients_near(gradients, p.expected_gradients(), GRADIENTS)
    assert {a.dtype for a in (y, *leaves(state), *gradients.values())} == {HALF}
    if lengths is not None:
        assert np.all(y[p.past] == 0)


@every_cell
def test_sums_are_float32(cell: str, device_backend: Backend) -> None:
    """Over 3000 inputs that add up to almost nothing, float16 sums would be off by far more."""
    p = Problem(cell, 1, 2, 3000, 8, dtype="float16")
    y, state = p.run(device_backend)
    assert_near((y, state), p.expected(), OUTPUTS)


def test_c_is_float32_within_a_call(device_backend: Backend) -> None:
    """300 steps that each add less to c than float16 could."""
    p = Problem("lstm", 300, 1, 1, 4, dtype="float16")
    p.params = {name: np.zeros_like(a) for name, a in p.params.items()}
    bias = p.params["layers.0.b"].reshape(4, 4)
    bias[:] = np.array([15, -9, 0, 3], HALF)[:, None]  # f is almost 1, i * g about 1e-4
    p.state = packed([np.zeros_like(s[:, :1]) + HALF.type(k) for k, s in enumerate(parts(p.state))])  # c starts at 1
    _, (_, c) = p.run(device_backend)
    assert_near(c, p.expected()[1][1], OUTPUTS)
    assert c.min() > 1.02


@every_cell
@pytest.mark.parametrize("B", [3, 9])
def test_streams(cell: str, B: int, device_backend: Backend) -> None:
    p = Problem(cell, 5, B, 5, 19, dtype="float16", num_layers=2)
    stream = p.layer.stream(B, packed([device_backend.array(s) for s in parts(p.state)]))
    y = np.stack([device_backend.numpy(stream.step(device_backend.array(x_t))) for x_t in p.x])
    assert y.dtype == HALF
    assert_near((y, packed([device_backend.numpy(s) for s in parts(stream.state)])), p.expected(), OUTPUTS)


@every_cell
def test_the_cpu_refuses(cell: str) -> None:
    p = Problem(cell, dtype="float16")
    for call in (p.layer, p.layer.vjp, p.layer.plan):
        with pytest.raises(TypeError, match="float16 layers run on CUDA only"):
            call(p.x)
    with pytest.raises(TypeError, match="float16 layers run on CUDA only"):
        p.layer.stream()


@every_cell
def test_files(cell: str, tmp_path: Path) -> None:
    layer = new_layer(cell, 3, 4, 2, dtype="float16", seed=0)
    assert {a.dtype for a in layer.params.values()} == {HALF}
    layer.save(tmp_path / "half.safetensors")
    loaded = gpurnn.load(tmp_path / "half.safetensors")
    assert repr(loaded) == repr(layer)
    assert "dtype='float16'" in repr(layer)
    assert_same_bits(dict(loaded.params), dict(layer.params))
