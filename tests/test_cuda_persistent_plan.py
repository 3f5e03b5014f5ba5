"""Which layers run persistently on which cards, in how many blocks; and that what is planned compiles without spills."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulated.require import REASON

if REASON is not None:
    pytest.skip(f"no CUDA compiler: {REASON}", allow_module_level=True)

from emulated.resources import resources
from emulated.table import DEVICES
from persistent_problem import toy
from test_cuda_persistent import CELLS

from gpurnn_kernels.cuda.persistent import BackwardPlan, Plan, Refusal, plan, plan_backward
from gpurnn_kernels.cuda.persistent.kernels import kernel_of
from gpurnn_kernels.spec import Spec

SIZES, BATCHES = (1, 31, 96, 128, 200, 256, 512, 768, 1024, 1500, 2000), (1, 3, 16, 64, 200)


def spec(cell: str, H: int, **options: Any) -> Spec:
    return Spec(cell, 8, H, np.dtype(options.pop("dtype", "float32")), **options)  # type: ignore[arg-type]


def uncompiled(name: str, resident: int = 1) -> Any:
    """A card of which each multiprocessor holds so many blocks of any kernel."""
    return SimpleNamespace(limits=DEVICES[name], resident_blocks=lambda kernel, shared: resident)


@pytest.mark.parametrize("planner", [plan, plan_backward])
@pytest.mark.parametrize("name", ["T4", "A100", "H100 SXM", "RTX 5090"])
def test_blocks_that_wait_for_each_other_are_resident(name: str, planner: Any) -> None:
    limits = DEVICES[name]
    for cell in CELLS:
        for H in SIZES:
            for B in BATCHES:
                made = planner(spec(cell, H), B, uncompiled(name))
                if isinstance(made, Refusal):
                    assert made.reason
                    continue
                g = made.geometry
                assert g.blocks * g.units >= H > (g.blocks - 1) * g.units
                assert g.blocks == 1 or made.blocks <= limits.multiprocessors
                assert (made.slices - 1) * made.slice_rows < B <= made.slices * made.slice_rows
                assert made.slice_rows <= g.rows
                assert g.shared_bytes <= limits.shared_per_block
                assert g.warps % 4 == 0
                assert g.threads <= 512


@pytest.mark.parametrize(("name", "H"), [("H100 SXM", 1024), ("A100", 768), ("RTX 4090", 1024), ("T4", 256)])
@pytest.mark.parametrize("cell", CELLS)
def test_large_layers_fit(name: str, H: int, cell: str) -> None:
    for B in (1, 8):
        made = plan(spec(cell, H), B, uncompiled(name))
        assert isinstance(made, Plan)
        assert made.geometry.blocks > 1
        assert f"{made.geometry.units} units" in str(made)


@pytest.mark.parametrize("cell", CELLS)
def test_small_layers_need_no_barrier(cell: str) -> None:
    made = plan(spec(cell, 64), 100, uncompiled("H100 SXM"))
    assert isinstance(made, Plan)
    assert made.geometry.blocks == 1
    assert not kernel_of(made.geometry).cooperative
    assert "all weights in each" in str(made)


def test_refusals() -> None:
    device = uncompiled("H100 SXM")
    reasons = {
        "too large": plan(spec("lstm", 2000), 1, device),
        "batch": plan(spec("lstm", 1024), 200, device),
        "empty": plan(spec("lstm", 64), 0, device),
        "old": plan(spec("lstm", 64, precision="tf32"), 1, uncompiled("T4")),
        "float64": plan(spec("lstm", 64, dtype="float64"), 1, device),
        "residency": plan(spec("lstm", 512), 1, uncompiled("H100 SXM", resident=0)),
    }
    texts = {name: made.reason for name, made in reasons.items() if isinstance(made, Refusal)}
    assert re.match(
        r"W_h \(4\*2000, 2000\) float32 = 64.0 MB; the 132 multiprocessors of H100 SXM hold .* MB of it", texts["too large"]
    )
    assert "rows of the batch" in texts["batch"]
    assert texts["empty"] == "no rows"
    assert "7.5" in texts["old"]
    assert "float64" in texts["float64"]
    assert "resident" in texts["residency"]


def test_what_sums_a_row_does_not_depend_on_the_batch() -> None:
    for cell in CELLS:
        for H in SIZES:
            made = [plan(spec(cell, H), B, uncompiled("H100 SXM")) for B in BATCHES]
            orders = {(one.geometry.lanes, one.geometry.splits) for one in made if isinstance(one, Plan)}
            assert len(orders) <= 1


def test_more_multiprocessors_share_out_the_batch() -> None:
    slices = []
    for multiprocessors in (8, 16, 64):
        device = uncompiled("A100")
        device.limits = replace(device.limits, multiprocessors=multiprocessors)
        made = plan(spec("lstm", 160), 24, device)
        assert isinstance(made, Plan)
        slices.append(made.slices)
    assert slices == sorted(set(slices))


def test_a_cooperative_grid_that_is_not_resident_is_not_launched() -> None:
    device = toy(multiprocessors=3)
    made = plan(spec("lstm", 200), 16, uncompiled("A100"))
    assert isinstance(made, Plan)
    kernel = kernel_of(replace(made.geometry, units=50))
    with pytest.raises(RuntimeError, match="holds"):
        device.launcher(kernel, (4, 1))


@pytest.mark.parametrize(
    ("planner", "cell", "name", "H", "precision"),
    [
        (plan, "lstm", "T4", 200, None),
        (plan, "gru_before", "T4", 200, None),
        (plan, "gru_before", "H100 SXM", 1024, None),
        (plan, "lstm", "H100 SXM", 1024, "tf32"),
        (plan_backward, "lstm", "H100 SXM", 768, None),
        (plan_backward, "gru_after", "A100", 768, None),
    ],
)
def test_no_spills(planner: Any, cell: str, name: str, H: int, precision: str | None) -> None:
    made = planner(spec(cell, H, precision=precision), 16, uncompiled(name))
    assert isinstance(made, Plan | BackwardPlan), made
    used = resources(kernel_of(made.geometry), DEVICES[name].compute_capability)
    assert used.stack == used.local == 0
    assert used.registers * made.geometry.threads <= DEVICES[name].registers_per_multiprocessor
