"""The pointwise kernels' machine code: nothing spilled or called, wide loads, full occupancy, how much of it there is."""

from dataclasses import replace
from typing import Any

import pytest
from emulated.compile import why_not
from emulated.occupancy import resident_blocks
from emulated.table import DEVICES

if why := why_not():
    pytest.skip(why, allow_module_level=True)

from emulated.sass import card

from gpurnn_kernels.cuda.pointwise_gru import gru_after_forward, gru_before_forward, gru_reset_forward
from gpurnn_kernels.cuda.pointwise_gru_back import gru_after_backward, gru_before_backward, gru_reset_backward
from gpurnn_kernels.cuda.pointwise_lstm import lstm_backward, lstm_forward
from gpurnn_kernels.cuda.step_kernel import StepForm, reset_kernel, step_kernel
from gpurnn_kernels.cuda.variant import Variant

FORWARD = {f.__name__: f for f in (lstm_forward, gru_after_forward, gru_reset_forward, gru_before_forward)}
BACKWARD = {f.__name__: f for f in (lstm_backward, gru_after_backward, gru_before_backward, gru_reset_backward)}
CARDS = {"7.5": DEVICES["T4"], "9.0": DEVICES["H100 SXM"]}
PLAIN = Variant(512, 32, 4)
# instructions a unit of a row on compute capability 9.0, and with fast_math
LSTM_INSTRUCTIONS, LSTM_INSTRUCTIONS_FAST = 112, 30

every_card = pytest.mark.parametrize("limits", CARDS.values(), ids=CARDS.keys())


@every_card
@pytest.mark.parametrize("make", FORWARD.values(), ids=FORWARD.keys())
def test_inference_leaves_every_thread_room(make: Any, limits: Any) -> None:
    final = replace(PLAIN, ragged=True, final=True)
    for variant in (PLAIN, final, replace(final, fast_math=True)):
        kernel = make(variant)
        found = card(kernel, limits.compute_capability)
        assert found.clean, (kernel.name, found)
        assert found.wide_loads >= 3
        assert found.wide_stores >= 1
        threads = resident_blocks(limits, kernel.threads, found.registers, found.shared) * kernel.threads
        assert threads == limits.threads_per_multiprocessor, kernel.name


@every_card
@pytest.mark.parametrize("make", [*FORWARD.values(), *BACKWARD.values()], ids=[*FORWARD, *BACKWARD])
def test_training(make: Any, limits: Any) -> None:
    kernel = make(replace(PLAIN, ragged=True, final=True, saved=True))
    found = card(kernel, limits.compute_capability)
    assert found.clean, (kernel.name, found)
    assert found.registers <= 64
    assert found.wide_loads >= 3
    assert found.wide_stores >= 2


@pytest.mark.parametrize(("storage", "lanes"), [(32, 1), (64, 2), (64, 1)])
@pytest.mark.parametrize("make", [*FORWARD.values(), *BACKWARD.values()], ids=[*FORWARD, *BACKWARD])
def test_other_forms(make: Any, storage: int, lanes: int) -> None:
    """One unit a thread, and float64, whose division has no subroutine either."""
    kernel = make(Variant(512, storage, lanes, ragged=True, saved=True, final=True))
    found = card(kernel, (9, 0))
    assert found.clean, (kernel.name, found)
    assert lanes == 1 or found.wide_loads >= 3


def test_instructions_a_unit() -> None:
    """On compute capability 9.0; four units a thread. The accurate form is five exponentials by polynomials, which keep
    4 ulp whatever the hardware's approximations do within their bounds."""
    for fast, most in ((False, LSTM_INSTRUCTIONS), (True, LSTM_INSTRUCTIONS_FAST)):
        found = card(lstm_forward(replace(PLAIN, fast_math=fast)), (9, 0))
        assert found.instructions <= 4 * most
        assert found.special == 4 * (5 if fast else 3)


@pytest.mark.parametrize("cell", ["lstm", "gru_after", "gru_before"])
def test_steps_of_streams(cell: str) -> None:
    for batch, storage in ((1, 32), (8, 32), (8, 64)):
        form = StepForm(cell, 64, 128, batch, storage, 1, False)
        for kernel in [step_kernel(form)] + [reset_kernel(form)] * (cell == "gru_before"):
            found = card(kernel, (9, 0))
            assert found.clean, (kernel.name, found)
