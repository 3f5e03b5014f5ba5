"""The CUDA backend's kernels, in the forms that matter: what `cuda-static` compiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.cuda import persistent
from gpurnn_kernels.cuda.cells import CELLS
from gpurnn_kernels.cuda.host.device import Device, Kernel
from gpurnn_kernels.cuda.persistent.kernels import kernel_of
from gpurnn_kernels.cuda.pointwise import gru_after, gru_before, lstm
from gpurnn_kernels.cuda.pointwise.form import Variant
from gpurnn_kernels.cuda.step import kernel as step_kernel
from gpurnn_kernels.spec import Spec

UNITS, BATCH = 1024, 16
PERSISTENT_SIZES = (64, 256, 1024)
FORWARD = (
    lstm.lstm_forward,
    gru_after.gru_after_forward,
    gru_before.gru_reset_forward,
    gru_before.gru_before_forward,
)
BACKWARD = (
    lstm.lstm_backward,
    gru_after.gru_after_backward,
    gru_before.gru_before_backward,
    gru_before.gru_reset_backward,
)


class Listed(NamedTuple):
    """kernel None: what it would be for does not fit, and why."""

    family: str  # pointwise, step or persistent
    name: str
    form: str
    kernel: Kernel | None
    elements: int | None  # of a thread, where its code does a fixed number of them
    shared: int = 0  # dynamic, bytes
    refusal: str = ""


def pointwise() -> Iterator[Listed]:
    """128-bit forms of the stepwise path; lanes are the units that a thread works on."""
    for storage, fast_math in ((32, False), (32, True), (64, False)):
        variant = Variant(UNITS, storage, 128 // storage, fast_math=fast_math)
        for make in (*FORWARD, *BACKWARD):
            yield _pointwise(make, variant)
    for make in FORWARD:
        yield _pointwise(make, Variant(UNITS, 32, 4, ragged=True, saved=True))


def _pointwise(make: Any, variant: Variant) -> Listed:
    words = [f"float{variant.storage}", *(name for name in ("ragged", "saved", "fast_math") if getattr(variant, name))]
    return Listed("pointwise", make.__name__, " ".join(words), make(variant), variant.lanes)


def steps() -> Iterator[Listed]:
    """One step of a stream in one kernel, or two."""
    for name, cell in CELLS.items():
        if cell.one_kernel is None:
            continue
        form = step_kernel.StepForm(cell.one_kernel, 256, 256, 1, 32, False)
        yield Listed("step", f"{name}_step", "float32 H 256 B 1", step_kernel.step_kernel(form), None)
        if cell.one_kernel.after_reset:
            yield Listed("step", f"{name}_reset", "float32 H 256 B 1", step_kernel.reset_kernel(form), None)


def persistents(device: Device) -> Iterator[Listed]:
    """Persistent kernels, as planned for a device."""
    passes = (("float32", "forward"), ("float32", "backward"), ("float16", "forward"))
    for cell in CELLS:
        for hidden in PERSISTENT_SIZES:
            for dtype, name in passes:
                plan = persistent.fit_forward if name == "forward" else persistent.fit_backward
                found = plan(Spec(cell, hidden, hidden, np.dtype(dtype)), BATCH, device)
                label = (f"persistent_{cell}_{name}", f"{dtype} H {hidden} B {BATCH}")
                if isinstance(found, persistent.Refusal):
                    yield Listed("persistent", *label, None, None, refusal=found.reason)
                else:
                    yield Listed("persistent", *label, kernel_of(found.geometry), None, found.geometry.shared_bytes)
