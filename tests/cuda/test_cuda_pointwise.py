"""Every pointwise kernel, forward and backward, step by step, against the reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import (
    GRADIENTS,
    OUTPUTS,
    Backend,
    Launches,
    Problem,
    assert_gradients_near,
    assert_near,
    assert_same_bits,
    named,
)
from reference import packed, parts
from reference_cells import CELLS

KERNELS = {"lstm": 1, "gru": 2, "gru_after": 1}  # pointwise kernels a step
every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", OUTPUTS)
Check = Callable[[Problem, str], None]
pytestmark = pytest.mark.usefixtures("stepwise")


@pytest.fixture
def check(device_backend: Backend, launches: Launches) -> Check:
    """Compares outputs and gradients with the reference; the emulated device raises what it has to say."""

    def compare(p: Problem, dtype: str) -> None:
        y, state = p.run(device_backend)
        assert_near((y, state), p.expected(), OUTPUTS[dtype])
        if p.lengths is not None:
            assert np.all(y[p.past] == 0)
        assert_gradients_near(p.gradients(device_backend), p.expected_gradients(), GRADIENTS[dtype])
        assert launches
        assert not launches.named("persistent")

    return compare


@every_cell
@every_dtype
@pytest.mark.parametrize("H", [1, 31, 33, 100])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (5, 3), (1, 3), (5, 1)])
def test_sizes(cell: str, dtype: str, H: int, T: int, B: int, check: Check) -> None:
    check(Problem(cell, T, B, 4, H, dtype=dtype), dtype)


@every_cell
@pytest.mark.parametrize(("H", "columns"), [(250, 256), (256, 64), (1024, 256)])
def test_rows_as_long_as_blocks(cell: str, H: int, columns: int, check: Check) -> None:
    from gpurnn_kernels.cuda.pointwise.form import Variant

    assert Variant(H, 32, 1 if H % 4 else 4).block.columns == columns
    check(Problem(cell, 2, 3, 2, H), "float32")


@every_cell
@every_dtype
@pytest.mark.parametrize("H", [6, 8])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}], ids=["forward", "reverse", "both"])
@pytest.mark.parametrize("lengths", [[2, 0, 5, 4], [1, 1, 1, 1], [0, 0, 0, 0]], ids=str)
def test_ragged(cell: str, dtype: str, H: int, options: dict[str, bool], lengths: list[int], check: Check) -> None:
    check(Problem(cell, 5, 4, 3, H, dtype=dtype, lengths=lengths, **options), dtype)


@every_cell
def test_lengths_on_the_device_are_clamped(cell: str, device_backend: Backend) -> None:
    p = Problem(cell, 5, 4, 3, 8, lengths=[5, 0, 3, 5], bidirectional=True)
    expected, expected_gradients = p.run(device_backend), p.gradients(device_backend)
    for dtype in (np.int64, np.int32, np.int8):
        p.lengths = device_backend.array(np.array([9, -3, 3, 100], dtype))
        assert_same_bits(p.run(device_backend), expected)
        assert_same_bits(p.gradients(device_backend), expected_gradients)


@every_cell
@pytest.mark.parametrize(("dtype", "H", "lanes"), [("float32", 8, 4), ("float32", 6, 1), ("float64", 6, 2), ("float64", 7, 1)])
def test_the_widest_loads_that_the_size_allows(
    cell: str, dtype: str, H: int, lanes: int, device_backend: Backend, launches: Launches
) -> None:
    p = Problem(cell, 3, 2, 3, H, dtype=dtype)
    p.run(device_backend)
    p.gradients(device_backend)
    pointwise = launches.named("_h")
    assert pointwise
    assert all(f"_h{H}_x{lanes}" in name for name in pointwise)


@every_cell
@pytest.mark.parametrize("batch_first", [False, True])
def test_alignment_of_what_callers_hand_in(cell: str, batch_first: bool, device_backend: Backend, launches: Launches) -> None:
    """Arrays that start off a boundary of 16 bytes, or whose rows do, take the scalar form; the values stay."""
    p = Problem(cell, 4, 3, 4, 8, batch_first=batch_first, bidirectional=True)
    expected = p.run(device_backend), p.gradients(device_backend)
    device = device_backend.device

    def shifted(a: Any) -> Any:
        flat = device.empty((a.size + 1,), a.dtype)
        flat[1:] = device.upload(a.reshape(-1))
        return flat[1:].reshape(a.shape)

    off = device_backend._replace(array=shifted)
    launches.clear()
    assert_near(p.run(off), expected[0], OUTPUTS["float32"])
    assert all("_x1" in name for name in launches.named("_h8_"))
    assert_gradients_near(p.gradients(off), expected[1], GRADIENTS["float32"])
    assert any("_x1" in name for name in launches.named("backward"))


@every_cell
def test_strided_inputs(cell: str, device_backend: Backend) -> None:
    p = Problem(cell, 4, 3, 5, 6)
    expected = p.run(device_backend), p.gradients(device_backend)

    def strided(a: Any) -> Any:
        wide = device_backend.device.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
        wide[..., ::-2] = device_backend.array(a)
        return wide[..., ::-2]

    apart = device_backend._replace(array=strided)
    assert_same_bits((p.run(apart), p.gradients(apart)), expected)


@every_cell
@pytest.mark.parametrize("lengths", [None, [3, 0, 2]], ids=["full", "ragged"])
def test_gradients_may_be_asked_for_again(cell: str, lengths: list[int] | None, device_backend: Backend) -> None:
    p = Problem(cell, 3, 3, 4, 7, lengths=lengths, num_layers=2)
    state, dstate = (packed([device_backend.array(s) for s in parts(both)]) for both in (p.state, p.dstate))
    _, vjp = p.layer.vjp(device_backend.array(p.x), state, lengths)
    dy = device_backend.array(p.dy)
    first, second = ({name: device_backend.numpy(a) for name, a in named(vjp(dy, dstate)).items()} for _ in range(2))
    assert_same_bits(second, first)
    assert_gradients_near(first, p.expected_gradients(), GRADIENTS["float32"])


@every_cell
def test_fast_math(cell: str, device_backend: Backend, launches: Launches) -> None:
    """The hardware's tanh: near, and not the accurate one."""
    p = Problem(cell, 5, 3, 4, 8, fast_math=True)
    accurate = Problem(cell, 5, 3, 4, 8).run(device_backend)
    y, state = p.run(device_backend)
    assert launches.named("fast_math")
    assert_near((y, state), accurate, 5e-3)
    assert np.abs(y - accurate[0]).max() > 1e-5
