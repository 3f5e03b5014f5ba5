"""Every CUDA kernel, and what the compiler of this process makes of it."""

import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

CARD = "H100 SXM"


def kernels() -> Iterator[tuple[str, Any]]:
    """The kernels of the package, in the forms that differ most, by names of their own."""
    from gpurnn_kernels.cuda.cells import CELLS
    from gpurnn_kernels.cuda.pointwise import gru_after, gru_before, lstm, sums
    from gpurnn_kernels.cuda.pointwise.form import Variant
    from gpurnn_kernels.cuda.step.kernel import StepForm, reset_kernel, step_kernel

    makers = (lstm.lstm_forward, lstm.lstm_backward, gru_after.gru_after_forward, gru_after.gru_after_backward)
    makers += (gru_before.gru_reset_forward, gru_before.gru_before_forward)
    makers += (gru_before.gru_before_backward, gru_before.gru_reset_backward)
    training = {"ragged": True, "saved": True, "final": True}
    forms = (Variant(1024, 32, 4), Variant(1024, 32, 4, fast_math=True, **training), Variant(1023, 64, **training))
    pointwise = [make(form) for make in makers for form in (*forms, Variant(1024, 16, 4, **training))]
    whole = [make(storage) for make in (sums._column_sums, sums._masked, sums._starts) for storage in (16, 32, 64)]
    steps = []
    for cell in CELLS.values():
        for batch, storage in ((1, 32), (8, 32), (3, 64), (3, 16)):
            form = StepForm(cell.one_kernel, 64, 128, batch, storage, False)
            steps += [step_kernel(form), *([reset_kernel(form)] if form.step.after_reset else [])]
    for kernel in (*pointwise, *whole, *steps):
        yield kernel.name, kernel
    yield from persistent_kernels()


def persistent_kernels() -> Iterator[tuple[str, Any]]:
    from gpurnn_kernels.cuda import persistent
    from gpurnn_kernels.cuda.cells import CELLS
    from gpurnn_kernels.cuda.persistent.kernels import kernel_of
    from gpurnn_kernels.spec import Spec
    from ptx_emulator.table import DEVICES

    device: Any = SimpleNamespace(limits=DEVICES[CARD], resident_blocks=lambda kernel, shared: 1)
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "float32": ("float32", {}),
        "float16": ("float16", {}),
        "tf32": ("float32", {"precision": "tf32"}),
    }
    for cell in CELLS:
        for hidden in (64, 256):
            for form, (dtype, options) in forms.items():
                for fit in (persistent.fit_forward, persistent.fit_backward):
                    plan = fit(Spec(cell, hidden, hidden, np.dtype(dtype), **options), 16, device)
                    if not isinstance(plan, persistent.Refusal):
                        kernel = kernel_of(plan.geometry)
                        yield f"{kernel.name}_{form}_h{hidden}", kernel


def card_of(kernel: Any) -> dict[str, int]:
    from ptx_emulator.sass import card
    from ptx_emulator.table import DEVICES

    found = card(kernel, DEVICES[CARD].compute_capability)
    return {"registers": found.registers, "spills": found.spills + found.local, "instructions": found.instructions}


def cards() -> dict[str, dict[str, Any]]:
    """Gives what each kernel takes, or why it does not compile."""
    found: dict[str, dict[str, Any]] = {}
    for name, kernel in kernels():
        try:
            found[name] = card_of(kernel)
        except Exception:  # whatever a compiler raises
            found[name] = {"error": traceback.format_exc()}
    return found
