"""The kernels: what a thread runs for its work on a job. Each is compiled per element type, by `compile.kernel_address`."""

from numba import carray  # type: ignore[attr-defined]

from .backward import (
    backward,
    gru_after_clip_step_back,
    gru_after_step_back,
    gru_before_clip_step_back,
    gru_before_step_back,
    lstm_step_back,
)
from .forward import forward
from .lstm_options import lstm_options_gradients, lstm_options_step, lstm_options_step_back
from .steps import (
    gru_after_clip_step,
    gru_after_project,
    gru_after_step,
    gru_before_clip_step,
    gru_before_project,
    gru_before_step,
    lstm_project,
    lstm_step,
)
from .weight_gradients import input_gradients, weight_gradients


def lstm_forward(job, work):  # type: ignore[no-untyped-def]
    forward(carray(job, 1)[0], carray(work, 1)[0], lstm_project, lstm_step)


def lstm_options_forward(job, work):  # type: ignore[no-untyped-def]
    forward(carray(job, 1)[0], carray(work, 1)[0], lstm_project, lstm_options_step)


def gru_before_forward(job, work):  # type: ignore[no-untyped-def]
    forward(carray(job, 1)[0], carray(work, 1)[0], gru_before_project, gru_before_step)


def gru_after_forward(job, work):  # type: ignore[no-untyped-def]
    forward(carray(job, 1)[0], carray(work, 1)[0], gru_after_project, gru_after_step)


def gru_before_clip_forward(job, work):  # type: ignore[no-untyped-def]
    forward(carray(job, 1)[0], carray(work, 1)[0], gru_before_project, gru_before_clip_step)


def gru_after_clip_forward(job, work):  # type: ignore[no-untyped-def]
    forward(carray(job, 1)[0], carray(work, 1)[0], gru_after_project, gru_after_clip_step)


def lstm_backward(job, work):  # type: ignore[no-untyped-def]
    backward(carray(job, 1)[0], carray(work, 1)[0], lstm_step_back)


def lstm_options_backward(job, work):  # type: ignore[no-untyped-def]
    backward(carray(job, 1)[0], carray(work, 1)[0], lstm_options_step_back)


def gru_before_backward(job, work):  # type: ignore[no-untyped-def]
    backward(carray(job, 1)[0], carray(work, 1)[0], gru_before_step_back)


def gru_after_backward(job, work):  # type: ignore[no-untyped-def]
    backward(carray(job, 1)[0], carray(work, 1)[0], gru_after_step_back)


def gru_before_clip_backward(job, work):  # type: ignore[no-untyped-def]
    backward(carray(job, 1)[0], carray(work, 1)[0], gru_before_clip_step_back)


def gru_after_clip_backward(job, work):  # type: ignore[no-untyped-def]
    backward(carray(job, 1)[0], carray(work, 1)[0], gru_after_clip_step_back)


def all_weight_gradients(job, work):  # type: ignore[no-untyped-def]
    weight_gradients(carray(job, 1)[0], carray(work, 1)[0])


def lstm_options_weight_gradients(job, work):  # type: ignore[no-untyped-def]
    lstm_options_gradients(carray(job, 1)[0], carray(work, 1)[0])


def all_input_gradients(job, work):  # type: ignore[no-untyped-def]
    input_gradients(carray(job, 1)[0], carray(work, 1)[0])
