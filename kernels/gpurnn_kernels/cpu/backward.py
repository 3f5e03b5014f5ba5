"""Back-propagation through time over a sequence, for each cell: rows x panels of one direction, run by one thread.

Backwards over the steps: the gates' gradients of a thread's own units, from what the forward pass kept, then dh_prev as the
product of all gates' gradients with W_h transposed, for its own units again. A panel is four vectors of units. The gates'
gradients also go into an array over all (t, b), from which `weight_gradients.py` makes dW, db and dx.
"""

from typing import Any

from .barrier import meet
from .forward import (
    V1,
    V2,
    V3,
    V4,
    batch_row,
    first_block,
    last_block,
    load_rows,
    outputs_in,
    saved_row,
    steps_of,
    store_rows,
    time_of,
    units_in,
)
from .inline import called, inlined
from .pointwise import (
    add_units,
    gru_after_unit_grad,
    gru_before_unit_grad,
    gru_reset_unit_grad,
    lstm_unit_grad,
)
from .pointwise_options import gru_after_clip_unit_grad, gru_before_clip_unit_grad, gru_clip_reset_unit_grad
from .tiles import multiply


@inlined
def blocks(job):  # type: ignore[no-untyped-def]
    """Vectors that hold the units of a row."""
    return -(-job.H // job.lanes)


@inlined
def product(job, panel, columns, rows, a, a_row, w, depth, init, init_row, out, out_row):  # type: ignore[no-untyped-def]
    """One panel of a product whose `columns` vectors are packed four to a panel; `w`, `init`, `out`: of panel 0."""
    w += panel * depth * V4
    init += panel * V4
    out += panel * V4
    width = min(4, columns - 4 * panel)
    if width == 4:
        multiply(4, job.zero, (rows, a, a_row, w, depth, init, init_row, out, out_row))
    elif width == 3:
        multiply(3, job.zero, (rows, a, a_row, w, depth, init, init_row, out, out_row))
    elif width == 2:
        multiply(2, job.zero, (rows, a, a_row, w, depth, init, init_row, out, out_row))
    else:
        multiply(1, job.zero, (rows, a, a_row, w, depth, init, init_row, out, out_row))


@called
def recurrent_product(job, work, rows, a, a_row, gates, w, out):  # type: ignore[no-untyped-def]
    """out += a W, for the units of this work."""
    depth = gates * blocks(job) * job.lanes
    for panel in range(work.panel_0, work.panel_1):
        product(job, panel, blocks(job), rows, a, a_row, w, depth, out, job.row, out, job.row)


@inlined
def h_before(job, row, s):  # type: ignore[no-untyped-def]
    """The address of the h that a row's step s started from: a user's row."""
    if s == 0:
        return job.h_0 + batch_row(job, row) * job.h_b
    return job.y + time_of(job, row, s - 1) * job.y_t + batch_row(job, row) * job.y_b


@called
def backward(job, work, step):  # type: ignore[no-untyped-def]
    """All rows of a work back through their sequences."""
    for first in range(work.row_0, work.row_1, work.row_cap):
        rows = min(work.row_cap, work.row_1 - first)
        load_rows(job, first, rows, job.dh_n, job.h_b, job.P, job.dh, work.out_0, work.out_1)
        if job.dc:
            for user, padded in ((job.dc_n, job.dc), (job.c_0, job.c)):
                load_rows(job, first, rows, user, job.c_b, job.H, padded, first_block(work), last_block(job, work))
        active = 0
        for s in range(steps_of(job, first) - 1, -1, -1):
            while active < rows and steps_of(job, first + active) > s:
                active += 1
            if job.dy:
                add_output_gradient(job, work, first, active, s)
            step(job, work, first, active, s)
        store_rows(job, first, rows, job.dh, 0, job.dh_0, job.h_b, job.P, work.out_0, work.out_1)
        if job.dc:
            store_rows(job, first, rows, job.dc, 0, job.dc_0, job.c_b, job.H, first_block(work), last_block(job, work))


@called
def add_output_gradient(job, work, first, rows, s):  # type: ignore[no-untyped-def]
    for m in range(rows):
        row = first + m
        dy = job.dy + time_of(job, row, s) * job.dy_t + batch_row(job, row) * job.dy_b
        for block in range(work.out_0, work.out_1):
            add_units(job.zero, (job.dh + row * job.row + block * V1, dy + block * V1, outputs_in(job, block)))


@inlined
def lstm_plane(job, first, s):  # type: ignore[no-untyped-def]
    """-> the gates' gradients of a step's rows, for the recurrent product, and their stride: where dW reads them, if all rows
    are at one time and so lie side by side there; else a plane of the step's own."""
    if job.order:
        return job.step + (s & 1) * job.step_plane + first * job.step_row, job.step_row
    return job.d_gates + saved_row(job, first, s) * job.d_row, job.d_row


@inlined
def lstm_step_back(job, work, first, rows, s):  # type: ignore[no-untyped-def]
    plane, plane_row = lstm_plane(job, first, s)
    for m in range(rows):
        row = first + m
        kept = saved_row(job, row, s)
        saved = job.saved + kept * job.saved_row
        c = job.saved_c + kept * job.kept_row
        c_before = job.c + row * job.row
        if s > 0:
            c_before = job.saved_c + saved_row(job, row, s - 1) * job.kept_row
        for block in range(first_block(work), last_block(job, work)):
            unit = block * V1
            lstm_unit_grad(
                job.zero,
                (
                    saved + block * V4,
                    c_before + unit,
                    c + unit,
                    job.dh + row * job.row + unit,
                    job.dc + row * job.row + unit,
                    plane + m * plane_row + block * V4,
                    job.d_gates + kept * job.d_row + block * V4,
                ),
            )
    meet(work)
    recurrent_product(job, work, rows, plane, plane_row, 4, job.w_h, job.dh + first * job.row)


def make_gru_after_step_back(clip: bool) -> Any:
    """The step with or without a clip: `clip` is a constant of the kernel."""

    @inlined
    def gru_after_step_back(job, work, first, rows, s):  # type: ignore[no-untyped-def]
        plane = job.step + (s & 1) * job.step_plane + first * job.step_row
        for m in range(rows):
            row = first + m
            kept = saved_row(job, row, s)
            for block in range(first_block(work), last_block(job, work)):
                unit = block * V1
                addresses = (
                    job.saved + kept * job.saved_row + block * V4,
                    h_before(job, row, s) + unit,
                    job.dh + row * job.row + unit,
                    plane + m * job.step_row + block * V3,
                    job.d_gates + kept * job.d_row + block * V3,
                    job.dq + kept * job.kept_row + unit,
                    units_in(job, block),
                )
                if clip:
                    gru_after_clip_unit_grad(job.zero, (*addresses, job.limit))
                else:
                    gru_after_unit_grad(job.zero, addresses)
        meet(work)
        recurrent_product(job, work, rows, plane, job.step_row, 3, job.w_h, job.dh + first * job.row)

    return gru_after_step_back


gru_after_step_back = make_gru_after_step_back(clip=False)
gru_after_clip_step_back = make_gru_after_step_back(clip=True)


def make_gru_before_step_back(clip: bool) -> Any:
    """The step with or without a clip: `clip` is a constant of the kernel."""

    @inlined
    def gru_before_step_back(job, work, first, rows, s):  # type: ignore[no-untyped-def]
        plane = job.step + (s & 1) * job.step_plane + first * job.step_row
        for m in range(rows):
            row = first + m
            kept = saved_row(job, row, s)
            for block in range(first_block(work), last_block(job, work)):
                unit = block * V1
                addresses = (
                    job.saved + kept * job.saved_row + block * V3,
                    h_before(job, row, s) + unit,
                    job.dh + row * job.row + unit,
                    plane + m * job.step_row + block * V2,
                    plane + m * job.step_row + job.step_n + unit,
                    job.d_gates + kept * job.d_row + block * V3,
                    job.drh + row * job.row + unit,
                    units_in(job, block),
                )
                if clip:
                    gru_before_clip_unit_grad(job.zero, (*addresses, job.limit))
                else:
                    gru_before_unit_grad(job.zero, addresses)
        meet(work)
        recurrent_product(job, work, rows, plane + job.step_n, job.step_row, 1, job.w_h_n, job.drh + first * job.row)
        for m in range(rows):
            row = first + m
            kept = saved_row(job, row, s)
            for block in range(first_block(work), last_block(job, work)):
                unit = block * V1
                addresses = (
                    job.saved + kept * job.saved_row + block * V3,
                    h_before(job, row, s) + unit,
                    job.dh + row * job.row + unit,
                    plane + m * job.step_row + block * V2,
                    job.d_gates + kept * job.d_row + block * V3,
                    job.drh + row * job.row + unit,
                    job.fed + kept * job.kept_row + unit,
                    units_in(job, block),
                )
                if clip:
                    gru_clip_reset_unit_grad(job.zero, (*addresses, job.limit))
                else:
                    gru_reset_unit_grad(job.zero, addresses)
        meet(work)
        recurrent_product(job, work, rows, plane, job.step_row, 2, job.w_h, job.dh + first * job.row)

    return gru_before_step_back


gru_before_step_back = make_gru_before_step_back(clip=False)
gru_before_clip_step_back = make_gru_before_step_back(clip=True)
