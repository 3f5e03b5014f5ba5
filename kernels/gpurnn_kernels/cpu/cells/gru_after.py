"""The forward pass of the GRU with the reset after: a chunk of steps projected, and one step. slot: n_x z r q.

W_x makes the first three of a slot, W_h the last three; q starts as b_hn.
"""

from ..codegen.inline import inlined
from ..passes.forward import V1, V3, V4
from .common import gemm_add, gemm_bias, make_project, make_step, row_at, slot_at, whole_panels
from .pointwise import copy_vector, gru_after_part, gru_after_spread, gru_after_unit, gru_after_unit_keep
from .pointwise_options import gru_after_clip_save, gru_after_clip_unit


@inlined
def gru_after_begin(job, share, x, x_row, slots, panel, count, descending):
    """W_x x + b and b_hn, into slots from the first one on."""
    whole = whole_panels(job, panel, count)
    w, b, out = job.w_x + panel * job.I * V3, job.b + panel * V3, slot_at(share, panel, 0)
    gemm_bias(job, 3, slots, x, x_row, whole, w, job.I, b, out, share.slot_row, V4, descending)
    for slot in range(slots):
        for p in range(whole):
            copy_vector(job.zero, (out + slot * share.slot_row + p * V4 + V3, job.b_n + (panel + p) * V1))
    if whole < count:
        w += whole * job.I * V3
        out += whole * V4
        gemm_bias(job, job.tail, slots, x, x_row, 1, w, job.I, b + whole * V3, out, share.slot_row, 0, 0)
        for slot in range(slots):
            at = out + slot * share.slot_row
            gru_after_part(job.zero, (at, job.b_n + (panel + whole) * V1, job.H % job.lanes))


@inlined
def gru_after_gates(job, share, rows, h, descending, slot, panel, count):
    """Adds W_h h to the slots of one step."""
    whole = whole_panels(job, panel, count)
    w, at = share.w_h + panel * job.H * V3, slot_at(share, panel, slot)
    gemm_add(job, 3, rows, h, job.row, whole, w, job.H, at + V1, share.slot_row, V4, descending)
    if whole < count:
        w += whole * job.H * V3
        at += whole * V4
        gemm_add(job, job.tail, rows, h, job.row, 1, w, job.H, at, share.slot_row, 0, 0)
        for m in range(rows):
            gru_after_spread(job.zero, (at + m * share.slot_row, job.H % job.lanes))


@inlined
def gru_after_place(job, share, first, s, slot, block, m):
    """What `gru_after_unit` takes for row m of a vector of units."""
    unit = block * V1
    at = (first + m) * job.row + unit
    h, h_out = share.h + (s & 1) * share.h_plane + at, share.h + (~s & 1) * share.h_plane + at
    return slot_at(share, block, slot + m), h, h_out, row_at(share, m), unit, job.H - block * job.lanes


@inlined
def gru_after_place_kept(job, share, first, s, slot, block, m):
    """What `gru_after_unit_keep` takes."""
    return *gru_after_place(job, share, first, s, slot, block, m), block * V4, job.streaming


@inlined
def gru_after_place_clipped(job, share, first, s, slot, block, m):
    """What `gru_after_clip_unit` takes."""
    return *gru_after_place(job, share, first, s, slot, block, m), job.limit


@inlined
def gru_after_place_saved(job, share, first, s, slot, block, m):
    """What `gru_after_clip_save` takes."""
    return slot_at(share, block, slot + m), row_at(share, m), block * V4


gru_after_project = make_project("gru_after_project", gru_after_begin)
gru_after_step = make_step("gru_after_step", gru_after_begin, gru_after_gates, gru_after_unit, gru_after_place)
gru_after_step_keep = make_step(
    "gru_after_step_keep", gru_after_begin, gru_after_gates, gru_after_unit_keep, gru_after_place_kept
)
gru_after_clip_step = make_step(
    "gru_after_clip_step",
    gru_after_begin,
    gru_after_gates,
    gru_after_clip_unit,
    gru_after_place_clipped,
    save=(gru_after_clip_save, gru_after_place_saved),
)
