"""Calls while another device is the current one, as the emulated device tells them apart: all happens where x lies."""

from typing import Any

import numpy as np
import pytest
from helpers import BACKENDS, Problem, assert_same_bits, emulated_device, leaves, new_layer
from reference import packed, parts
from reference_cells import CELLS

from ptx_emulator.compile import why_not

if why := why_not():
    pytest.skip(why, allow_module_level=True)

from ptx_emulator.device import EmulatedDevice

EMULATED = BACKENDS["cuda-emulated"]
F32 = np.float32
every_cell = pytest.mark.parametrize("cell", CELLS)


def elsewhere() -> Any:
    """Inside, a device is the current one that no array lies on."""
    return EmulatedDevice("A100").current()


def test_the_emulator_tells_devices_apart() -> None:
    x = EMULATED.array(np.zeros((2, 3), F32))
    for attempt in (x.copy, lambda: x + x, lambda: x.fill(1), lambda: emulated_device().multiply(x.T, x, x)):
        with elsewhere(), pytest.raises(RuntimeError, match="another is the current one"):
            attempt()
    with elsewhere(), emulated_device().current():
        x.copy()


def everything(cell: str) -> list[Any]:
    """What the public calls of a layer give, as NumPy arrays, over arrays that must be copied or converted first."""
    p = Problem(cell, 3, 2, 3, 5, lengths=[3, 1])
    x = EMULATED.array(np.nan_to_num(p.x).swapaxes(0, 1).copy()).swapaxes(0, 1)
    gaps = [EMULATED.array(np.repeat(s, 2, -1))[..., ::2] for s in parts(p.state)]
    on_device = EMULATED.array(np.array([3, 1], np.int32))
    found = [p.layer(x), p.layer(x, packed(gaps)), p.layer(x, None, [3, 1]), p.layer(x, None, on_device)]
    out, vjp = p.layer.vjp(x, packed(gaps), [3, 1])
    gradients = vjp(out[0])
    found += [out, gradients.x, gradients.state, tuple(gradients.params.values())]
    return [EMULATED.numpy(array) for array in leaves(tuple(found))]


@every_cell
def test_calls(cell: str) -> None:
    expected = everything(cell)
    with elsewhere():
        found = everything(cell)
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def steps(cell: str, rows: int) -> list[Any]:
    """What a stream gives, as NumPy arrays."""
    rng = np.random.default_rng(0)
    stream = new_layer(cell, 3, 5, seed=0).stream(rows)
    xs = [EMULATED.array(rng.standard_normal((rows, 6)).astype(F32))[:, ::2] for _ in range(4)]
    found = [stream.step(xs[0]), stream.state]
    stream.reset([1])
    found += [stream.step(xs[1]), stream.state]
    stream.state = stream.state
    found.append(stream.step(xs[2]))
    stream.reset()
    found.append(stream.step(xs[3]))
    if rows == 2:
        captured = stream.capture()
        with emulated_device().current():
            captured.x[...] = xs[0]
        captured.replay()
        found.append(captured.out)
    return [EMULATED.numpy(array) for array in leaves(tuple(found))]


@every_cell
@pytest.mark.parametrize("rows", [2, 9])
def test_streams(cell: str, rows: int) -> None:
    expected = steps(cell, rows)
    with elsewhere():
        found = steps(cell, rows)
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


@every_cell
def test_a_captured_replay_owns_its_arrays(cell: str) -> None:
    """It writes to them whether or not the caller has them still."""
    stream = new_layer(cell, 3, 5, seed=0).stream(2)
    stream.step(EMULATED.array(np.zeros((2, 3), F32)))
    stream.capture().replay()
