"""One step back through time, for each cell: the gates' gradients of a thread's own units, row by row, then dh_prev."""

from typing import Any

from ..backward import recurrent_product
from ..barrier import meet
from ..emission import advanced
from ..forward import V1, V2, V3, V4, batch_row, first_block, last_block, saved_row, time_of
from ..inline import inlined, named
from ..memory import record
from ..pointwise import gru_after_unit_grad, gru_before_unit_grad, gru_reset_unit_grad, lstm_unit_grad
from ..pointwise_options import gru_after_clip_unit_grad, gru_before_clip_unit_grad, gru_clip_reset_unit_grad
from .common import each


@inlined
def blocks_of_row(unit, place, job, work, row, s, plane):  # type: ignore[no-untyped-def]
    """Runs `unit` over this work's vectors of a row's units, at the words that `place` gives. plane: the row's, of the gates'
    gradients that the recurrent product reads."""
    first = first_block(work)
    words = place(job, row, s, plane, first)
    steps = advanced(place(job, row, s, plane, first + 1), words, -1)
    each(unit, job, work, words, steps, last_block(job, work) - first)


@inlined
def h_before(job, row, s):  # type: ignore[no-untyped-def]
    """The address of the h that a row's step s started from: a user's row."""
    if s == 0:
        return job.h_0 + batch_row(job, row) * job.h_b
    return job.y + time_of(job, row, s - 1) * job.y_t + batch_row(job, row) * job.y_b


@inlined
def lstm_plane(job, first, s):  # type: ignore[no-untyped-def]
    """-> the gates' gradients of a step's rows, for the recurrent product, and their stride: where dW reads them, if all rows
    are at one time and so lie side by side there; else a plane of the step's own."""
    if job.order:
        return job.step + (s & 1) * job.step_plane + first * job.step_row, job.step_row
    return job.d_gates + saved_row(job, first, s) * job.d_row, job.d_row


@inlined
def lstm_place(job, row, s, plane, block):  # type: ignore[no-untyped-def]
    """What `lstm_unit_grad` takes."""
    kept = saved_row(job, row, s)
    unit = block * V1
    before = job.c + row * job.row + unit
    if s > 0:
        before = job.saved_c + saved_row(job, row, s - 1) * job.kept_row + unit
    return (
        job.saved + kept * job.saved_row + block * V4,
        before,
        job.saved_c + kept * job.kept_row + unit,
        job.dh + row * job.row + unit,
        job.dc + row * job.row + unit,
        plane + block * V4,
        job.d_gates + kept * job.d_row + block * V4,
    )


def lstm_step_back(job, work, first, rows, s):  # type: ignore[no-untyped-def]
    job, work = record(job), record(work)
    plane, plane_row = lstm_plane(job, first, s)
    for m in range(rows):
        blocks_of_row(lstm_unit_grad, lstm_place, job, work, first + m, s, plane + m * plane_row)
    meet(work)
    recurrent_product(job, work, rows, s, plane, plane_row, 4, job.w_h, job.dh + first * job.row)


@inlined
def plane_at(job, first, s):  # type: ignore[no-untyped-def]
    """The gates' gradients of a step's rows that the recurrent product reads, job.step_row apart."""
    return job.step + (s & 1) * job.step_plane + first * job.step_row


@inlined
def gru_after_place(job, row, s, plane, block):  # type: ignore[no-untyped-def]
    """What `gru_after_unit_grad` takes."""
    kept = saved_row(job, row, s)
    unit = block * V1
    return (
        job.saved + kept * job.saved_row + block * V4,
        h_before(job, row, s) + unit,
        job.dh + row * job.row + unit,
        plane + block * V3,
        job.d_gates + kept * job.d_row + block * V3,
        job.dq + kept * job.kept_row + unit,
        job.H - block * job.lanes,
    )


@inlined
def gru_after_place_clipped(job, row, s, plane, block):  # type: ignore[no-untyped-def]
    """What `gru_after_clip_unit_grad` takes."""
    return *gru_after_place(job, row, s, plane, block), job.limit


def _make_gru_after(name: str, unit: Any, place: Any) -> Any:
    def step_back(job, work, first, rows, s):  # type: ignore[no-untyped-def]
        job, work = record(job), record(work)
        plane = plane_at(job, first, s)
        for m in range(rows):
            blocks_of_row(unit, place, job, work, first + m, s, plane + m * job.step_row)
        meet(work)
        recurrent_product(job, work, rows, s, plane, job.step_row, 3, job.w_h, job.dh + first * job.row)

    return named(name, step_back)


gru_after_step_back = _make_gru_after("gru_after_step_back", gru_after_unit_grad, gru_after_place)
gru_after_clip_step_back = _make_gru_after("gru_after_clip_step_back", gru_after_clip_unit_grad, gru_after_place_clipped)


@inlined
def gru_before_place(job, row, s, plane, block):  # type: ignore[no-untyped-def]
    """What `gru_before_unit_grad` takes."""
    kept = saved_row(job, row, s)
    unit = block * V1
    return (
        job.saved + kept * job.saved_row + block * V3,
        h_before(job, row, s) + unit,
        job.dh + row * job.row + unit,
        plane + block * V2,
        plane + job.step_n + unit,
        job.d_gates + kept * job.d_row + block * V3,
        job.drh + row * job.row + unit,
        job.H - block * job.lanes,
    )


@inlined
def gru_reset_place(job, row, s, plane, block):  # type: ignore[no-untyped-def]
    """What `gru_reset_unit_grad` takes."""
    kept = saved_row(job, row, s)
    unit = block * V1
    return (
        job.saved + kept * job.saved_row + block * V3,
        h_before(job, row, s) + unit,
        job.dh + row * job.row + unit,
        plane + block * V2,
        job.d_gates + kept * job.d_row + block * V3,
        job.drh + row * job.row + unit,
        job.fed + kept * job.kept_row + unit,
        job.H - block * job.lanes,
    )


@inlined
def gru_before_place_clipped(job, row, s, plane, block):  # type: ignore[no-untyped-def]
    """What `gru_before_clip_unit_grad` takes."""
    return *gru_before_place(job, row, s, plane, block), job.limit


@inlined
def gru_reset_place_clipped(job, row, s, plane, block):  # type: ignore[no-untyped-def]
    """What `gru_clip_reset_unit_grad` takes."""
    return *gru_reset_place(job, row, s, plane, block), job.limit


def _make_gru_before(name: str, update: tuple[Any, Any], reset: tuple[Any, Any]) -> Any:
    """update, reset: a unit and its places."""
    update_unit, update_place = update
    reset_unit, reset_place = reset

    def step_back(job, work, first, rows, s):  # type: ignore[no-untyped-def]
        job, work = record(job), record(work)
        plane = plane_at(job, first, s)
        for m in range(rows):
            blocks_of_row(update_unit, update_place, job, work, first + m, s, plane + m * job.step_row)
        meet(work)
        recurrent_product(job, work, rows, s, plane + job.step_n, job.step_row, 1, job.w_h_n, job.drh + first * job.row)
        for m in range(rows):
            blocks_of_row(reset_unit, reset_place, job, work, first + m, s, plane + m * job.step_row)
        meet(work)
        recurrent_product(job, work, rows, s, plane, job.step_row, 2, job.w_h, job.dh + first * job.row)

    return named(name, step_back)


gru_before_step_back = _make_gru_before(
    "gru_before_step_back", (gru_before_unit_grad, gru_before_place), (gru_reset_unit_grad, gru_reset_place)
)
gru_before_clip_step_back = _make_gru_before(
    "gru_before_clip_step_back",
    (gru_before_clip_unit_grad, gru_before_place_clipped),
    (gru_clip_reset_unit_grad, gru_reset_place_clipped),
)
