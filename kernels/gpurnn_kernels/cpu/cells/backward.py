"""One step back through time, for each cell: the product that makes dh of some panels complete, then the gates' gradients of
their units, row by row."""

from typing import Any

from ..codegen.bundle import advanced
from ..codegen.inline import inlined, named
from ..codegen.intrinsics import record
from ..passes.backward import NR_BACK, add_output_gradient, blocks, recurrent_product
from ..passes.forward import V1, V2, V3, V4, batch_row, saved_row, time_of
from .common import each, next_panel, panels_here
from .pointwise import gru_after_unit_grad, gru_before_unit_grad, gru_reset_unit_grad, lstm_unit_grad
from .pointwise_options import gru_after_clip_unit_grad, gru_before_clip_unit_grad, gru_clip_reset_unit_grad


@inlined
def blocks_of_rows(unit, place, job, share, first, rows, s, plane, plane_row, panel, count):
    """Runs `unit` over the vectors of `count` panels of units, row by row, at the words that `place` gives. plane: the first
    row's, of the gates' gradients that the recurrent product reads."""
    block, last = panel * NR_BACK, min((panel + count) * NR_BACK, blocks(job))
    for m in range(rows):
        words = place(job, first + m, s, plane + m * plane_row, block)
        steps = advanced(place(job, first + m, s, plane + m * plane_row, block + 1), words, -1)
        each(unit, job, share, words, steps, last - block)


@inlined
def complete_dh(job, share, first, rows, s, before, after, after_row, gates, panel, count):
    """Adds to dh of `count` panels what the step after s hands back, from its gates' gradients at `after`, and dy of s."""
    if before > 0:
        dh = job.dh + first * job.row
        recurrent_product(job, share, before, s + 1, after, after_row, gates, job.w_h, dh, panel, count)
    if job.dy and s >= 0:
        add_output_gradient(job, first, rows, s, panel * NR_BACK, min((panel + count) * NR_BACK, blocks(job)))


@inlined
def h_before(job, row, s):
    """The address of the h that a row's step s started from: a user's row."""
    if s == 0:
        return job.h_0 + batch_row(job, row) * job.h_b
    return job.y + time_of(job, row, s - 1) * job.y_t + batch_row(job, row) * job.y_b


@inlined
def lstm_plane(job, first, s):
    """-> the gates' gradients of a step's rows, for the recurrent product, and their stride: where dW reads them, if all rows
    are at one time and so lie side by side there; else a plane of the step's own."""
    if job.order:
        return job.step + (s & 1) * job.step_plane + first * job.step_row, job.step_row
    return job.d_gates + saved_row(job, first, s) * job.d_row, job.d_row


@inlined
def lstm_place(job, row, s, plane, block):
    """What `lstm_unit_grad` takes."""
    kept = saved_row(job, row, s)
    unit = block * V1
    before = job.c_start + row * job.row + unit
    if s > 0:
        before = job.saved_c + saved_row(job, row, s - 1) * job.unit_row + unit
    return (
        job.saved + kept * job.saved_row + block * V4,
        before,
        job.saved_c + kept * job.unit_row + unit,
        job.dh + row * job.row + unit,
        job.dc + row * job.row + unit,
        plane + block * V4,
        job.d_gates + kept * job.d_row + block * V4,
    )


def lstm_step_back(job, share, first, rows, s, before):
    job, share = record(job), record(share)
    (plane, plane_row), (after, _) = lstm_plane(job, first, s), lstm_plane(job, first, s + 1)
    panel = next_panel(share, s & 1)
    while panel >= 0:
        count = panels_here(share, panel)
        complete_dh(job, share, first, rows, s, before, after, plane_row, 4, panel, count)
        if s >= 0:
            blocks_of_rows(lstm_unit_grad, lstm_place, job, share, first, rows, s, plane, plane_row, panel, count)
        panel = next_panel(share, s & 1)


@inlined
def plane_at(job, first, s):
    """The gates' gradients of a step's rows that the recurrent product reads, job.step_row apart."""
    return job.step + (s & 1) * job.step_plane + first * job.step_row


@inlined
def gru_after_place(job, row, s, plane, block):
    """What `gru_after_unit_grad` takes."""
    kept = saved_row(job, row, s)
    unit = block * V1
    return (
        job.saved + kept * job.saved_row + block * V4,
        h_before(job, row, s) + unit,
        job.dh + row * job.row + unit,
        plane + block * V3,
        job.d_gates + kept * job.d_row + block * V3,
        job.dq + kept * job.unit_row + unit,
        job.H - block * job.lanes,
    )


@inlined
def gru_after_place_clipped(job, row, s, plane, block):
    """What `gru_after_clip_unit_grad` takes."""
    return *gru_after_place(job, row, s, plane, block), job.limit


def _make_gru_after(name: str, unit: Any, place: Any) -> Any:
    def step_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        plane, after = plane_at(job, first, s), plane_at(job, first, s + 1)
        panel = next_panel(share, s & 1)
        while panel >= 0:
            count = panels_here(share, panel)
            complete_dh(job, share, first, rows, s, before, after, job.step_row, 3, panel, count)
            if s >= 0:
                blocks_of_rows(unit, place, job, share, first, rows, s, plane, job.step_row, panel, count)
            panel = next_panel(share, s & 1)

    return named(name, step_back)


gru_after_step_back = _make_gru_after("gru_after_step_back", gru_after_unit_grad, gru_after_place)
gru_after_clip_step_back = _make_gru_after("gru_after_clip_step_back", gru_after_clip_unit_grad, gru_after_place_clipped)


@inlined
def gru_before_place(job, row, s, plane, block):
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
def gru_reset_place(job, row, s, plane, block):
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
        job.fed + kept * job.unit_row + unit,
        job.H - block * job.lanes,
    )


@inlined
def gru_before_place_clipped(job, row, s, plane, block):
    """What `gru_before_clip_unit_grad` takes."""
    return *gru_before_place(job, row, s, plane, block), job.limit


@inlined
def gru_reset_place_clipped(job, row, s, plane, block):
    """What `gru_clip_reset_unit_grad` takes."""
    return *gru_reset_place(job, row, s, plane, block), job.limit


def _make_gru_before(name: str, update: tuple[Any, Any], reset: tuple[Any, Any]) -> tuple[Any, Any]:
    """The kernels of a step's two phases. update, reset: a unit and its places."""
    update_unit, update_place = update
    reset_unit, reset_place = reset

    def step_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        plane, after = plane_at(job, first, s), plane_at(job, first, s + 1)
        panel = next_panel(share, s & 1)
        while panel >= 0:
            count = panels_here(share, panel)
            complete_dh(job, share, first, rows, s, before, after, job.step_row, 2, panel, count)
            if s >= 0:
                blocks_of_rows(update_unit, update_place, job, share, first, rows, s, plane, job.step_row, panel, count)
            panel = next_panel(share, s & 1)

    def second_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        plane, drh = plane_at(job, first, s), job.drh + first * job.row
        panel = next_panel(share, s & 1)
        while panel >= 0:
            count = panels_here(share, panel)
            recurrent_product(job, share, rows, s, plane + job.step_n, job.step_row, 1, job.w_h_n, drh, panel, count)
            blocks_of_rows(reset_unit, reset_place, job, share, first, rows, s, plane, job.step_row, panel, count)
            panel = next_panel(share, s & 1)

    return named(name, step_back), named(f"{name}_second", second_back)


gru_before_step_back, gru_before_second_back = _make_gru_before(
    "gru_before_step_back", (gru_before_unit_grad, gru_before_place), (gru_reset_unit_grad, gru_reset_place)
)
gru_before_clip_step_back, gru_before_clip_second_back = _make_gru_before(
    "gru_before_clip_step_back",
    (gru_before_clip_unit_grad, gru_before_place_clipped),
    (gru_clip_reset_unit_grad, gru_reset_place_clipped),
)
