"""The LSTM's forward pass: a chunk of steps projected, and one step. slot: f i o g."""

from ..codegen.inline import inlined
from ..passes.forward import V1, V4
from .common import gemm_add, gemm_bias, make_project, make_step, row_at, slot_at, whole_panels
from .pointwise import lstm_spread, lstm_unit, lstm_unit_keep


@inlined
def lstm_begin(job, share, x, x_row, slots, panel, count, descending):
    """W_x x + b, into slots from the first one on."""
    whole = whole_panels(job, panel, count)
    w, b, out = job.w_x + panel * job.I * V4, job.b + panel * V4, slot_at(share, panel, 0)
    gemm_bias(
        job, job.wide, slots, x, x_row, 4 * whole // job.wide, w, job.I, b, out, share.slot_row, job.wide * V1, descending
    )
    if whole < count:
        w += whole * job.I * V4
        b += whole * V4
        gemm_bias(job, job.tail, slots, x, x_row, 1, w, job.I, b, out + whole * V4, share.slot_row, 0, 0)


@inlined
def lstm_gates(job, share, rows, h, descending, slot, panel, count):
    """Adds W_h h to the slots of one step."""
    whole = whole_panels(job, panel, count)
    w, at = share.w_h + panel * job.P * V4, slot_at(share, panel, slot)
    gemm_add(job, job.wide, rows, h, job.row, 4 * whole // job.wide, w, job.P, at, share.slot_row, job.wide * V1, descending)
    if whole < count:
        w += whole * job.P * V4
        at += whole * V4
        gemm_add(job, job.tail, rows, h, job.row, 1, w, job.P, at, share.slot_row, 0, 0)
        for m in range(rows):
            lstm_spread(job.zero, (at + m * share.slot_row, job.H % job.lanes))


@inlined
def lstm_place(job, share, first, s, slot, block, m):
    """What `lstm_unit` takes for row m of a vector of units."""
    unit = block * V1
    at = (first + m) * job.row + unit
    h_out = share.h + (~s & 1) * share.h_plane + at
    return slot_at(share, block, slot + m), share.c + at, h_out, row_at(share, m), unit, job.H - block * job.lanes


@inlined
def lstm_place_kept(job, share, first, s, slot, block, m):
    """What `lstm_unit_keep` takes."""
    return *lstm_place(job, share, first, s, slot, block, m), block * V4, job.streaming


lstm_project = make_project("lstm_project", lstm_begin)
lstm_step = make_step("lstm_step", lstm_begin, lstm_gates, lstm_unit, lstm_place)
lstm_step_keep = make_step("lstm_step_keep", lstm_begin, lstm_gates, lstm_unit_keep, lstm_place_kept)
