"""Calls while another device is the current one: all happens where x lies. On GPUs, this takes two."""

from typing import Any

import numpy as np
import pytest
from cuda_compiler import needs_compiler
from helpers import BACKENDS, Backend, Problem, assert_same_bits, leaves, new_layer
from reference import packed, parts
from reference_cells import CELLS

F32 = np.float32
every_cell = pytest.mark.parametrize("cell", CELLS)


@needs_compiler
def test_the_emulator_tells_devices_apart() -> None:
    backend = BACKENDS["cuda-emulated"]
    device, other = backend.devices()
    x = backend.array(np.zeros((2, 3), F32))
    for attempt in (x.copy, lambda: x + x, lambda: x.fill(1), lambda: device.multiply(x.T, x, x)):
        with other.current(), pytest.raises(RuntimeError, match="another is the current one"):
            attempt()
    with other.current(), device.current():
        x.copy()


def everything(cell: str, backend: Backend) -> list[Any]:
    """The public calls of a layer, their results as NumPy arrays, over arrays that must be copied or converted first."""
    p = Problem(cell, 3, 2, 3, 5, lengths=[3, 1])
    x = backend.array(np.nan_to_num(p.x).swapaxes(0, 1).copy()).swapaxes(0, 1)
    gaps = [backend.array(np.repeat(s, 2, -1))[..., ::2] for s in parts(p.state)]
    on_device = backend.array(np.array([3, 1], np.int32))
    found = [p.layer(x), p.layer(x, packed(gaps)), p.layer(x, None, [3, 1]), p.layer(x, None, on_device)]
    out, vjp = p.layer.vjp(x, packed(gaps), [3, 1])
    gradients = vjp(out[0])
    found += [out, gradients.x, gradients.state, tuple(gradients.params.values())]
    return [backend.numpy(array) for array in leaves(tuple(found))]


@every_cell
def test_calls(cell: str, device_backend: Backend, another_device: Any) -> None:
    expected = everything(cell, device_backend)
    with another_device.current():
        found = everything(cell, device_backend)
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def steps(cell: str, rows: int, backend: Backend) -> list[Any]:
    """A stream's results, as NumPy arrays."""
    rng = np.random.default_rng(0)
    stream = new_layer(cell, 3, 5, seed=0).stream(rows)
    xs = [backend.array(rng.standard_normal((rows, 6)).astype(F32))[:, ::2] for _ in range(4)]
    found = [stream.step(xs[0]), stream.state]
    stream.reset([1])
    found += [stream.step(xs[1]), stream.state]
    stream.state = stream.state
    found.append(stream.step(xs[2]))
    stream.reset()
    found.append(stream.step(xs[3]))
    if rows == 2:
        captured = stream.capture()
        with backend.device.current():
            captured.x[...] = xs[0]
        captured.replay()
        found.append(captured.out)
    return [backend.numpy(array) for array in leaves(tuple(found))]


@every_cell
@pytest.mark.parametrize("rows", [2, 9])
def test_streams(cell: str, rows: int, device_backend: Backend, another_device: Any) -> None:
    expected = steps(cell, rows, device_backend)
    with another_device.current():
        found = steps(cell, rows, device_backend)
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


@every_cell
def test_a_captured_replay_owns_its_arrays(cell: str, device_backend: Backend) -> None:
    """It writes to them whether or not the caller has them still."""
    stream = new_layer(cell, 3, 5, seed=0).stream(2)
    stream.step(device_backend.array(np.zeros((2, 3), F32)))
    stream.capture().replay()
