"""Every pointwise kernel, forward and backward, step by step on the emulated device, against the reference."""

from typing import Any

import numpy as np
import pytest
from helpers import (
    BACKENDS,
    GRADIENTS,
    OUTPUTS,
    Problem,
    assert_gradients_near,
    assert_near,
    assert_same_bits,
    emulated_device,
    named,
)
from reference import packed, parts
from reference_cells import CELLS

from ptx_emulator.compile import why_not

if why := why_not():
    pytest.skip(why, allow_module_level=True)

from gpurnn_kernels.cuda.pointwise.form import Variant

EMULATED = BACKENDS["cuda-emulated"]
KERNELS = {"lstm": 1, "gru": 2, "gru_after": 1}  # pointwise kernels a step
every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", OUTPUTS)
pytestmark = pytest.mark.usefixtures("stepwise")


def kernels(text: str) -> list[str]:
    """Of those launched since the device was reset, the ones with this in their names."""
    return [name for name in emulated_device().launches if text in name]


def check(p: Problem, dtype: str) -> None:
    device = emulated_device()
    device.reset()
    y, state = p.run(EMULATED)
    assert_near((y, state), p.expected(), OUTPUTS[dtype])
    if p.lengths is not None:
        assert np.all(y[p.past] == 0)
    assert not kernels("persistent")
    assert_gradients_near(p.gradients(EMULATED), p.expected_gradients(), GRADIENTS[dtype])
    assert not kernels("persistent")
    assert not device.warnings


@every_cell
@every_dtype
@pytest.mark.parametrize("H", [1, 31, 33, 100])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (5, 3), (1, 3), (5, 1)])
def test_sizes(cell: str, dtype: str, H: int, T: int, B: int) -> None:
    check(Problem(cell, T, B, 4, H, dtype=dtype), dtype)


@every_cell
@pytest.mark.parametrize(("H", "columns"), [(250, 256), (256, 64), (1024, 256)])
def test_rows_as_long_as_blocks(cell: str, H: int, columns: int) -> None:
    assert Variant(H, 32, 1 if H % 4 else 4).block.columns == columns
    check(Problem(cell, 2, 3, 2, H), "float32")


@every_cell
@every_dtype
@pytest.mark.parametrize("H", [6, 8])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}], ids=["forward", "reverse", "both"])
@pytest.mark.parametrize("lengths", [[2, 0, 5, 4], [1, 1, 1, 1], [0, 0, 0, 0]], ids=str)
def test_ragged(cell: str, dtype: str, H: int, options: dict[str, bool], lengths: list[int]) -> None:
    check(Problem(cell, 5, 4, 3, H, dtype=dtype, lengths=lengths, **options), dtype)


@every_cell
def test_lengths_on_the_device_are_clamped(cell: str) -> None:
    p = Problem(cell, 5, 4, 3, 8, lengths=[5, 0, 3, 5], bidirectional=True)
    expected, expected_gradients = p.run(EMULATED), p.gradients(EMULATED)
    for dtype in (np.int64, np.int32, np.int8):
        p.lengths = EMULATED.array(np.array([9, -3, 3, 100], dtype))
        assert_same_bits(p.run(EMULATED), expected)
        assert_same_bits(p.gradients(EMULATED), expected_gradients)


@every_cell
@pytest.mark.parametrize(("dtype", "H", "lanes"), [("float32", 8, 4), ("float32", 6, 1), ("float64", 6, 2), ("float64", 7, 1)])
def test_the_widest_loads_that_the_size_allows(cell: str, dtype: str, H: int, lanes: int) -> None:
    p = Problem(cell, 3, 2, 3, H, dtype=dtype)
    emulated_device().reset()
    p.run(EMULATED)
    p.gradients(EMULATED)
    pointwise = kernels("_h")
    assert pointwise
    assert all(f"_h{H}_x{lanes}" in name for name in pointwise)


@every_cell
@pytest.mark.parametrize("batch_first", [False, True])
def test_alignment_of_what_callers_hand_in(cell: str, batch_first: bool) -> None:
    """Arrays that start off a boundary of 16 bytes, or whose rows do, take the scalar form; the values stay."""
    p = Problem(cell, 4, 3, 4, 8, batch_first=batch_first, bidirectional=True)
    expected = p.run(EMULATED), p.gradients(EMULATED)
    device = emulated_device()

    def shifted(a: Any) -> Any:
        flat = device.empty((a.size + 1,), a.dtype)
        flat[1:] = a.reshape(-1)
        return flat[1:].reshape(a.shape)

    off = EMULATED._replace(array=shifted)
    device.reset()
    assert_near(p.run(off), expected[0], OUTPUTS["float32"])
    assert all("_x1" in name for name in kernels("_h8_"))
    assert_gradients_near(p.gradients(off), expected[1], GRADIENTS["float32"])
    assert any("_x1" in name for name in kernels("backward"))


@every_cell
def test_strided_inputs(cell: str) -> None:
    p = Problem(cell, 4, 3, 5, 6)
    expected = p.run(EMULATED), p.gradients(EMULATED)

    def strided(a: Any) -> Any:
        wide = emulated_device().zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
        wide[..., ::-2] = a
        return wide[..., ::-2]

    apart = EMULATED._replace(array=strided)
    assert_same_bits((p.run(apart), p.gradients(apart)), expected)


@every_cell
@pytest.mark.parametrize("lengths", [None, [3, 0, 2]], ids=["full", "ragged"])
def test_gradients_may_be_asked_for_again(cell: str, lengths: list[int] | None) -> None:
    p = Problem(cell, 3, 3, 4, 7, lengths=lengths, num_layers=2)
    state, dstate = (packed([EMULATED.array(s) for s in parts(both)]) for both in (p.state, p.dstate))
    _, vjp = p.layer.vjp(EMULATED.array(p.x), state, lengths)
    dy = EMULATED.array(p.dy)
    first, second = ({name: np.array(a) for name, a in named(vjp(dy, dstate)).items()} for _ in range(2))
    assert_same_bits(second, first)
    assert_gradients_near(first, p.expected_gradients(), GRADIENTS["float32"])


@every_cell
def test_fast_math(cell: str) -> None:
    """The hardware's tanh: near, and not the accurate one."""
    p = Problem(cell, 5, 3, 4, 8, fast_math=True)
    accurate = Problem(cell, 5, 3, 4, 8).run(EMULATED)
    emulated_device().reset()
    y, state = p.run(EMULATED)
    assert kernels("fast_math")
    assert_near((y, state), accurate, 5e-3)
    assert np.abs(y - accurate[0]).max() > 1e-5
