"""The LSTM's forward pass: a chunk of steps projected, and one step. slot: f i o g."""

from ..codegen.inline import inlined
from ..passes.forward import V1, V4
from .common import add, make_project, make_step, row_at, slot_at, start, whole_panels
from .pointwise import lstm_spread, lstm_unit, lstm_unit_keep


@inlined
def lstm_begin(job, work, x, x_row, slots, panel, count, back):  # type: ignore[no-untyped-def]
    """W_x x + b, into slots from the first one on."""
    whole = whole_panels(job, panel, count)
    w, b, out = job.w_x + panel * job.I * V4, job.b + panel * V4, slot_at(work, panel, 0)
    start(job, job.wide, slots, x, x_row, 4 * whole // job.wide, w, job.I, b, out, work.slot_row, job.wide * V1, back)
    if whole < count:
        w += whole * job.I * V4
        b += whole * V4
        start(job, job.narrow, slots, x, x_row, 1, w, job.I, b, out + whole * V4, work.slot_row, 0, 0)


@inlined
def lstm_gates(job, work, rows, h, back, slot, panel, count):  # type: ignore[no-untyped-def]
    """Adds W_h h to the slots of one step."""
    whole = whole_panels(job, panel, count)
    w, at = job.w_h + panel * job.P * V4, slot_at(work, panel, slot)
    add(job, job.wide, rows, h, job.row, 4 * whole // job.wide, w, job.P, at, work.slot_row, job.wide * V1, back)
    if whole < count:
        w += whole * job.P * V4
        at += whole * V4
        add(job, job.narrow, rows, h, job.row, 1, w, job.P, at, work.slot_row, 0, 0)
        for m in range(rows):
            lstm_spread(job.zero, (at + m * work.slot_row, job.H % job.lanes))


@inlined
def lstm_place(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    """What `lstm_unit` takes for row m of a vector of units."""
    unit = block * V1
    at = (first + m) * job.row + unit
    left = job.H - block * job.lanes
    return slot_at(work, block, slot + m), job.c + at, job.h + (~s & 1) * job.h_plane + at, row_at(work, m), unit, left


@inlined
def lstm_place_kept(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    """What `lstm_unit_keep` takes."""
    return *lstm_place(job, work, first, s, slot, block, m), block * V4, job.past


lstm_project = make_project("lstm_project", lstm_begin)
lstm_step = make_step("lstm_step", lstm_begin, lstm_gates, lstm_unit, lstm_place)
lstm_step_keep = make_step("lstm_step_keep", lstm_begin, lstm_gates, lstm_unit_keep, lstm_place_kept)
