"""Grids of very large batches, which CUDA bounds at 65,535 blocks along y and z. Nothing is launched."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ptx_emulator.compile import why_not

if why := why_not():
    pytest.skip(why, allow_module_level=True)

from gpurnn_kernels.cuda import persistent
from gpurnn_kernels.cuda.host.device import Kernel, check_grid
from gpurnn_kernels.cuda.host.weights import Weights
from gpurnn_kernels.cuda.pointwise import sums as whole
from gpurnn_kernels.cuda.pointwise.form import Variant
from gpurnn_kernels.cuda.run import Run
from gpurnn_kernels.cuda.saved import SavedDirection
from gpurnn_kernels.spec import Spec
from ptx_emulator.table import DEVICES

F32 = np.dtype(np.float32)
ROWS = 3_000_000


def large(*shape: int) -> Any:
    """An array of zeros that takes no memory."""
    return np.broadcast_to(F32.type(0), shape)


class Grids:
    """A device that launches nothing: the grids that it was asked for, checked as a device does."""

    def __init__(self) -> None:
        self.limits = DEVICES["H100 SXM"]
        self.seen: list[tuple[int, ...]] = []

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        return large(*shape)

    zeros = empty

    def address(self, array: Any) -> int:
        return 0

    def resident_blocks(self, kernel: Kernel, shared: int) -> int:
        return 1

    def launcher(self, kernel: Kernel, grid: Sequence[int], *first: Any, shared: int = 0) -> Any:
        check_grid(kernel, grid)
        self.seen.append(tuple(grid))
        return lambda *rest: None


def test_what_no_device_launches_is_refused() -> None:
    kernel = Kernel("wide", None, (), 256)
    check_grid(kernel, (2**31 - 1, 65_535))
    for grid in ((1, 65_536), (2**31,), (1, 1, 65_536)):
        with pytest.raises(ValueError, match=r"wide: expected a grid of at most \(2147483647, 65535, 65535\) blocks, got"):
            check_grid(kernel, grid)


@pytest.mark.parametrize("cell", ["lstm", "gru_after", "gru_before"])
def test_persistent_passes_of_many_rows(cell: str) -> None:
    H, device = 8, Grids()
    spec = Spec(cell, 3, H, F32)  # type: ignore[arg-type]
    weights = Weights(*(large(4 * H, H) for _ in range(5)))
    states, steps, gates = [large(ROWS, H)] * 2, large(1, ROWS, H), large(1, ROWS, spec.gates * H)
    plan = persistent.fit_forward(spec, ROWS, device)  # type: ignore[arg-type]
    assert isinstance(plan, persistent.ForwardPlan)
    assert plan.slices > 65_535
    arrays = {"xp": gates, "initial": states, "lengths": None, "y": steps, "final": states}
    persistent.run_forward(device, plan, weights, **arrays)  # type: ignore[arg-type]
    back = persistent.fit_backward(spec, ROWS, device)  # type: ignore[arg-type]
    if isinstance(back, persistent.BackwardPlan):
        given = {"saved": SavedDirection(gates, steps), "y": steps, "initial": states, "lengths": None, "dy": None}
        made = {"dfinal": states, "d_gates": gates, "dinitial": states}
        persistent.run_backward(device, back, weights, **given, **made)  # type: ignore[arg-type]
    assert all(grid[0] > 65_535 for grid in device.seen)


def test_pointwise_kernels_and_sums_of_many_rows() -> None:
    device = Grids()
    run = Run(device, Spec("lstm", 3, 8, F32), None, 2, ROWS, None)  # type: ignore[arg-type]
    check_grid(Kernel("pointwise", None, (), 256), run.grid(Variant(8, 32)))
    whole.column_sums(device, large(1000 * ROWS, 8))  # type: ignore[arg-type]
    whole.masked(device, large(1000, ROWS, 3), large(ROWS))  # type: ignore[arg-type]
    whole.starts(device, large(1000, ROWS, 3), large(ROWS))  # type: ignore[arg-type]
    assert max(grid[0] for grid in device.seen) > 65_535


def test_more_rows_than_kernels_count_are_refused() -> None:
    with pytest.raises(ValueError, match=r"T \* B: expected below 4294967296 on a GPU, got 65536 \* 65536"):
        Run(Grids(), Spec("lstm", 3, 8, F32), None, 65_536, 65_536, None)  # type: ignore[arg-type]
