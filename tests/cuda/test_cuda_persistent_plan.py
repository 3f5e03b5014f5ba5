"""Plans: the layers that run persistently on a card, and in how many blocks; all that is planned compiles without spills."""

import re
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_compiler import REASON

if REASON is not None:
    pytest.skip(f"no CUDA compiler: {REASON}", allow_module_level=True)

from persistent_problem import toy
from test_cuda_persistent import CELLS

from gpurnn_kernels.cuda.persistent import BackwardPlan, ForwardPlan, Refusal, fit_backward, fit_forward
from gpurnn_kernels.cuda.persistent.kernels import kernel_of
from gpurnn_kernels.spec import Spec
from ptx_emulator.sass import card
from ptx_emulator.table import DEVICES

HALF = {"dtype": "float16"}
SIZES, BATCHES = (1, 31, 96, 128, 200, 256, 512, 768, 1024, 1500, 2000), (1, 3, 16, 64, 200)


def spec(cell: str, H: int, **options: Any) -> Spec:
    return Spec(cell, 8, H, np.dtype(options.pop("dtype", "float32")), **options)  # type: ignore[arg-type]


def uncompiled(name: str, resident: int = 1) -> Any:
    """A card of which each multiprocessor holds so many blocks of any kernel."""
    return SimpleNamespace(limits=DEVICES[name], resident_blocks=lambda kernel, shared: resident)


@pytest.mark.parametrize(("planner", "dtype"), [(fit_forward, "float32"), (fit_forward, "float16"), (fit_backward, "float32")])
@pytest.mark.parametrize("name", ["T4", "A100", "H100 SXM", "RTX 5090"])
def test_blocks_that_wait_for_each_other_are_resident(name: str, planner: Any, dtype: str) -> None:
    limits = DEVICES[name]
    for cell in CELLS:
        for H in SIZES:
            for B in BATCHES:
                made = planner(spec(cell, H, dtype=dtype), B, uncompiled(name))
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
        made = fit_forward(spec(cell, H), B, uncompiled(name))
        assert isinstance(made, ForwardPlan)
        assert made.geometry.blocks > 1
        assert f"{made.geometry.units} units" in str(made)


@pytest.mark.parametrize(("name", "H"), [("H100 SXM", 1376), ("A100", 1216), ("RTX 5090", 1376), ("T4", 600)])
def test_float16_layers_fit_that_others_do_not(name: str, H: int) -> None:
    for B in (1, 16):
        made = fit_forward(spec("lstm", H, dtype="float16"), B, uncompiled(name))
        assert isinstance(made, ForwardPlan)
        assert "float16 on tensor cores" in str(made)
    for other in ({"precision": "tf32"}, {}):
        assert isinstance(fit_forward(spec("lstm", H, **other), 16, uncompiled(name)), Refusal)


@pytest.mark.parametrize("cell", CELLS)
def test_small_layers_need_no_barrier(cell: str) -> None:
    made = fit_forward(spec(cell, 64), 100, uncompiled("H100 SXM"))
    assert isinstance(made, ForwardPlan)
    assert made.geometry.blocks == 1
    assert not kernel_of(made.geometry).cooperative
    assert "all weights in each" in str(made)


@pytest.mark.parametrize(
    ("cell", "name", "H"), [("lstm", "H100 SXM", 1184), ("gru_after", "H100 SXM", 1312), ("gru_before", "A100", 1024)]
)
def test_layers_that_fit_both_ways_with_weights_in_shared_memory(cell: str, name: str, H: int) -> None:
    made = fit_backward(spec(cell, H), 1, uncompiled(name))
    assert isinstance(fit_forward(spec(cell, H), 1, uncompiled(name)), ForwardPlan)
    assert isinstance(made, BackwardPlan)
    assert any(tile.shared_words for tile in made.geometry.products)
    used = card(kernel_of(made.geometry), DEVICES[name].compute_capability)
    assert used.stack == used.local == used.spills == 0
    assert made.geometry.registers < used.registers


def test_refusals() -> None:
    device = uncompiled("H100 SXM")
    reasons = {
        "too large": fit_forward(spec("lstm", 2000), 1, device),
        "batch": fit_forward(spec("lstm", 1024), 200, device),
        "empty": fit_forward(spec("lstm", 64), 0, device),
        "old": fit_forward(spec("lstm", 64, precision="tf32"), 1, uncompiled("T4")),
        "float64": fit_forward(spec("lstm", 64, dtype="float64"), 1, device),
        "too large in float16": fit_forward(spec("lstm", 2000, dtype="float16"), 1, device),
        "residency": fit_forward(spec("lstm", 512), 1, uncompiled("H100 SXM", resident=0)),
    }
    texts = {name: made.reason for name, made in reasons.items() if isinstance(made, Refusal)}
    assert re.match(
        r"W_h \(4\*2000, 2000\) float32 = 64.0 MB; the 132 multiprocessors of H100 SXM hold .* MB of it", texts["too large"]
    )
    assert re.match(r"W_h \(4\*2000, 2000\) float16 = 32.0 MB; .* hold .* MB of it", texts["too large in float16"])
    assert "rows of the batch" in texts["batch"]
    assert texts["empty"] == "no rows"
    assert "7.5" in texts["old"]
    assert "float64" in texts["float64"]
    assert "resident" in texts["residency"]


def test_what_sums_a_row_does_not_depend_on_the_batch() -> None:
    for cell, dtype in product(CELLS, ("float32", "float16")):
        for H in SIZES:
            made = [fit_forward(spec(cell, H, dtype=dtype), B, uncompiled("H100 SXM")) for B in BATCHES]
            orders = {(one.geometry.lanes, one.geometry.splits) for one in made if isinstance(one, ForwardPlan)}
            assert len(orders) <= 1


@pytest.mark.parametrize(
    ("cell", "name", "H"), [("lstm", "A100", 1024), ("gru_after", "H100 SXM", 1312), ("gru_before", "A100", 1024)]
)
def test_nor_does_what_sums_its_gradients_in_a_layer_too_large_for_registers(cell: str, name: str, H: int) -> None:
    made = [fit_backward(spec(cell, H), B, uncompiled(name)) for B in (1, 3, 16)]
    orders = {(one.geometry.lanes, one.geometry.units) for one in made if isinstance(one, BackwardPlan)}
    assert all(isinstance(one, BackwardPlan) for one in made)
    assert len(orders) == 1


def test_more_multiprocessors_share_out_the_batch() -> None:
    slices = []
    for multiprocessors in (8, 16, 64):
        device = uncompiled("A100")
        device.limits = replace(device.limits, multiprocessors=multiprocessors)
        made = fit_forward(spec("lstm", 160), 24, device)
        assert isinstance(made, ForwardPlan)
        slices.append(made.slices)
    assert slices == sorted(set(slices))


def test_a_cooperative_grid_that_is_not_resident_is_not_launched() -> None:
    device = toy(multiprocessors=3)
    made = fit_forward(spec("lstm", 200), 16, uncompiled("A100"))
    assert isinstance(made, ForwardPlan)
    kernel = kernel_of(replace(made.geometry, units=50))
    with pytest.raises(RuntimeError, match="holds"):
        device.launcher(kernel, (4, 1))


@pytest.mark.parametrize(
    ("planner", "cell", "name", "H", "options"),
    [
        (fit_forward, "lstm", "T4", 200, {}),
        (fit_forward, "gru_before", "T4", 200, {}),
        (fit_forward, "gru_before", "H100 SXM", 1024, {}),
        (fit_forward, "lstm", "H100 SXM", 1024, {"precision": "tf32"}),
        (fit_forward, "lstm", "T4", 601, HALF),
        (fit_forward, "gru_before", "A100", 1023, HALF),
        (fit_forward, "gru_after", "H100 SXM", 1376, HALF),
        (fit_forward, "lstm", "RTX 5090", 1376, HALF),
        (fit_backward, "lstm", "H100 SXM", 768, {}),
        (fit_backward, "gru_after", "A100", 768, {}),
        (fit_backward, "lstm", "A100", 1024, {}),
        (fit_backward, "lstm", "H100 SXM", 1056, {}),
    ],
)
def test_no_spills(planner: Any, cell: str, name: str, H: int, options: dict[str, Any]) -> None:
    made = planner(spec(cell, H, **options), 16, uncompiled(name))
    assert isinstance(made, ForwardPlan | BackwardPlan), made
    limits = DEVICES[name]
    used = card(kernel_of(made.geometry), limits.compute_capability)
    assert used.stack == used.local == used.spills == 0
    assert made.geometry.registers < used.registers
    assert used.registers * made.geometry.threads <= limits.registers_per_multiprocessor
    assert (used.tensor > 0) == bool(options)
