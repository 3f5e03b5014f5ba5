"""The machine code of the CUDA kernels: nothing spills, nothing is called, memory is read 128 bits at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_compiler import needs_compiler

pytestmark = needs_compiler

CARDS = ["T4", "RTX 3090", "H100 SXM"]
FORWARD = ["lstm_forward", "gru_after_forward", "gru_reset_forward", "gru_before_forward"]
BACKWARD = ["lstm_backward", "gru_after_backward", "gru_before_backward", "gru_reset_backward"]
# Arrays that a thread of the forward kernels reads and writes in float32, 128 bits at a time: gates, biases, states; outputs
READS = {"lstm_forward": 9, "gru_after_forward": 11, "gru_reset_forward": 3, "gru_before_forward": 5}
WRITES = {"lstm_forward": 2, "gru_after_forward": 1, "gru_reset_forward": 1, "gru_before_forward": 1}
# Instructions an element, at most, on any of the cards: accurate, and with fast_math
BUDGETS = {
    "lstm_forward": (104, 25),
    "gru_after_forward": (75, 28),
    "gru_reset_forward": (28, 12),
    "gru_before_forward": (49, 17),
}


def made(name: str, **form: Any) -> Any:
    """A pointwise kernel of H = 1024."""
    from gpurnn_kernels.cuda.pointwise import gru_after, gru_before, lstm
    from gpurnn_kernels.cuda.pointwise.form import Variant

    storage = form.pop("storage", 32)
    variant = Variant(1024, storage, form.pop("lanes", 128 // storage), **form)
    modules = (lstm, gru_after, gru_before)
    return next(getattr(module, name) for module in modules if hasattr(module, name))(variant)


def card_of(kernel: Any, name: str) -> Any:
    from ptx_emulator.sass import card
    from ptx_emulator.table import DEVICES

    return card(kernel, DEVICES[name].compute_capability)


def occupancy(kernel: Any, name: str) -> float:
    from ptx_emulator.occupancy import resident_blocks
    from ptx_emulator.table import DEVICES

    limits, found = DEVICES[name], card_of(kernel, name)
    blocks = resident_blocks(limits, kernel.threads, found.registers, found.shared)
    return blocks * kernel.threads / limits.threads_per_multiprocessor


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("kernel", FORWARD)
def test_the_pointwise_forward_fills_the_multiprocessor(kernel: str, name: str) -> None:
    for fast_math in (False, True):
        of = made(kernel, fast_math=fast_math)
        found = card_of(of, name)
        assert found.clean, found
        assert of.threads == 256
        assert occupancy(of, name) == 1, found
        assert found.wide_loads == found.loads == READS[kernel], found
        assert found.wide_stores == found.stores == WRITES[kernel], found
        assert found.instructions <= 4 * BUDGETS[kernel][fast_math], found


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("kernel", BACKWARD)
def test_the_pointwise_backward(kernel: str, name: str) -> None:
    of = made(kernel)
    found = card_of(of, name)
    assert found.clean, found
    assert occupancy(of, name) >= 0.5, found
    assert found.wide_loads == found.loads > 0, found
    assert found.wide_stores == found.stores > 0, found


@pytest.mark.parametrize("name", ["T4", "H100 SXM"])
@pytest.mark.parametrize("kernel", FORWARD + BACKWARD)
def test_training(kernel: str, name: str) -> None:
    found = card_of(made(kernel, ragged=True, saved=True, final=True), name)
    assert found.clean, found
    assert found.registers <= 64, found
    assert found.wide_loads >= found.loads - 1 > 0, found  # a row's length is one number
    assert found.wide_stores == found.stores > 0, found


@pytest.mark.parametrize("kernel", FORWARD + BACKWARD)
def test_float64(kernel: str) -> None:
    for name in CARDS:
        found = card_of(made(kernel, storage=64), name)
        assert found.clean, found
        assert found.wide_loads == found.loads > 0, found


@pytest.mark.parametrize("storage", [32, 64])
@pytest.mark.parametrize("kernel", FORWARD + BACKWARD)
def test_one_unit_a_thread(kernel: str, storage: int) -> None:
    found = card_of(made(kernel, storage=storage, lanes=1, ragged=True, saved=True, final=True), "H100 SXM")
    assert found.clean, found


@pytest.mark.parametrize("cell", ["lstm", "gru_after", "gru_before"])
def test_steps_of_streams(cell: Any) -> None:
    from gpurnn_kernels.cuda.cells import CELLS
    from gpurnn_kernels.cuda.step.kernel import StepForm, reset_kernel, step_kernel

    for batch, storage in ((1, 32), (8, 32), (8, 64)):
        form = StepForm(CELLS[cell].one_kernel, 64, 128, batch, storage, False)
        for of in [step_kernel(form)] + [reset_kernel(form)] * (cell == "gru_before"):
            found = card_of(of, "H100 SXM")
            assert found.clean, found


PERSISTENT = [("lstm", "T4", 64), ("lstm", "H100 SXM", 512), ("gru_after", "H100 SXM", 256), ("gru_before", "H100 SXM", 256)]


@pytest.mark.parametrize(("cell", "name", "hidden"), PERSISTENT)
def test_persistent_kernels_keep_their_weights_in_registers(cell: Any, name: str, hidden: int) -> None:
    from gpurnn_kernels.cuda import persistent
    from gpurnn_kernels.cuda.persistent.kernels import kernel_of
    from gpurnn_kernels.spec import Spec
    from ptx_emulator.device import EmulatedDevice

    spec = Spec(cell, hidden, hidden, np.dtype(np.float32))
    for plan in (persistent.fit_forward, persistent.fit_backward):
        found = plan(spec, 16, EmulatedDevice(name))
        assert not isinstance(found, persistent.Refusal), found
        of = card_of(kernel_of(found.geometry), name)
        assert not of.spills, of
        assert not of.local, of
        assert of.registers > found.geometry.registers, of


def test_the_checks_see_what_they_look_for() -> None:
    """A kernel held to so few registers that it must spill, and one whose rows do not lie on 16 bytes."""
    from gpurnn_kernels.cuda.pointwise.form import Variant
    from gpurnn_kernels.cuda.pointwise.lstm import lstm_forward

    squeezed = replace(made("lstm_backward"), name="squeezed", blocks_per_multiprocessor=8)
    assert card_of(squeezed, "H100 SXM").spills > 0
    assert not card_of(squeezed, "H100 SXM").clean
    assert card_of(lstm_forward(Variant(1023, 32, 1)), "T4").wide_loads == 0
