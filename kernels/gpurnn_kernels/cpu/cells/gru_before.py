"""The forward pass of the GRU with the reset before: a chunk of steps projected, and one step.

Panels are pairs of vectors of units. slot: z r z r; n n in a slot of its own, half as large. A step has two products: r must
be known of all units before W_hn multiplies r * h.
"""

from typing import Any

from ..codegen.inline import inlined, named
from ..codegen.intrinsics import record
from ..passes.forward import V1, V2, V3, V4, address_rows
from .common import cells, gemm_add, gemm_bias, is_descending, make_project, next_panel, panels_here, row_at, slot_at
from .pointwise import gru_before_unit, gru_before_unit_keep, gru_reset_unit, gru_reset_unit_keep
from .pointwise_options import gru_before_clip_save, gru_before_clip_unit, gru_clip_reset_unit


@inlined
def slot_n_at(share, panel, slot):
    """Of n n: as `slot_at`, half as far apart."""
    return share.slots_n + ((panel - share.slot_0) * share.slot_panel + slot * share.slot_row) // 2


@inlined
def blocks_in(job, panel, count):
    """Vectors of units in `count` panels from `panel` on."""
    return min(2 * count, -(-job.H // job.lanes) - 2 * panel)


@inlined
def gru_before_begin(job, share, x, x_row, slots, panel, count, descending):
    """W_x x + b, into slots from the first one on."""
    blocks = blocks_in(job, panel, count)
    pairs = blocks // 2
    w, b, out = job.w_x + panel * job.I * V4, job.b + panel * V4, slot_at(share, panel, 0)
    gemm_bias(
        job, job.wide, slots, x, x_row, 4 * pairs // job.wide, w, job.I, b, out, share.slot_row, job.wide * V1, descending
    )
    if blocks & 1:
        w += pairs * job.I * V4
        gemm_bias(job, 2, slots, x, x_row, 1, w, job.I, b + pairs * V4, out + pairs * V4, share.slot_row, 0, 0)
    begin_candidate(job, share, x, x_row, slots, panel, blocks, descending)


@inlined
def begin_candidate(job, share, x, x_row, slots, panel, blocks, descending):
    """W_xn x + b_n, alike."""
    pairs, row = blocks // 2, share.slot_row // 2
    w, b, out = job.w_x_n + panel * job.I * V2, job.b_n + panel * V2, slot_n_at(share, panel, 0)
    gemm_bias(job, 2, slots, x, x_row, pairs, w, job.I, b, out, row, V2, descending)
    if blocks & 1:
        w += pairs * job.I * V2
        gemm_bias(job, 1, slots, x, x_row, 1, w, job.I, b + pairs * V2, out + pairs * V2, row, 0, 0)


gru_before_project = make_project("gru_before_project", gru_before_begin)


@inlined
def gru_before_gates(job, share, rows, h, descending, slot, panel, blocks):
    """Adds W_hz h and W_hr h to the slots of one step."""
    pairs = blocks // 2
    w, at = share.w_h + panel * job.H * V4, slot_at(share, panel, slot)
    gemm_add(job, job.wide, rows, h, job.row, 4 * pairs // job.wide, w, job.H, at, share.slot_row, job.wide * V1, descending)
    if blocks & 1:
        w += pairs * job.H * V4
        gemm_add(job, 2, rows, h, job.row, 1, w, job.H, at + pairs * V4, share.slot_row, 0, 0)


@inlined
def gru_before_candidate(job, share, rows, rh, descending, slot, panel, blocks):
    """Adds W_hn (r * h) to the slots of one step."""
    pairs = blocks // 2
    w, at = share.w_h_n + panel * job.H * V2, slot_n_at(share, panel, slot)
    gemm_add(job, 2, rows, rh, job.row, pairs, w, job.H, at, share.slot_row // 2, V2, descending)
    if blocks & 1:
        w += pairs * job.H * V2
        gemm_add(job, 1, rows, rh, job.row, 1, w, job.H, at + pairs * V2, share.slot_row // 2, 0, 0)


@inlined
def z_at(job, share, block, slot):
    return slot_at(share, block // 2, slot) + (block & 1) * V2


@inlined
def r_at(job, share, block, slot):
    return z_at(job, share, block, slot) + V1


@inlined
def n_at(share, block, slot):
    return slot_n_at(share, block // 2, slot) + (block & 1) * V1


@inlined
def reset_place(job, share, first, s, slot, block, m):
    """What `gru_reset_unit` takes for row m of a vector of units."""
    at = (first + m) * job.row + block * V1
    return r_at(job, share, block, slot + m), share.h + (s & 1) * share.h_plane + at, share.rh + at


@inlined
def reset_place_kept(job, share, first, s, slot, block, m):
    return *reset_place(job, share, first, s, slot, block, m), row_at(share, m), block * V3


@inlined
def reset_place_clipped(job, share, first, s, slot, block, m):
    return *reset_place(job, share, first, s, slot, block, m), job.limit


@inlined
def update_place(job, share, first, s, slot, block, m):
    """What `gru_before_unit` takes."""
    unit = block * V1
    at = (first + m) * job.row + unit
    slots = z_at(job, share, block, slot + m), n_at(share, block, slot + m)
    h, h_out = share.h + (s & 1) * share.h_plane + at, share.h + (~s & 1) * share.h_plane + at
    return *slots, h, h_out, row_at(share, m), unit, job.H - block * job.lanes


@inlined
def update_place_kept(job, share, first, s, slot, block, m):
    return *update_place(job, share, first, s, slot, block, m), block * V3


@inlined
def update_place_clipped(job, share, first, s, slot, block, m):
    return *update_place(job, share, first, s, slot, block, m), job.limit


@inlined
def save_place(job, share, first, s, slot, block, m):
    """What `gru_before_clip_save` takes."""
    slots = z_at(job, share, block, slot + m), r_at(job, share, block, slot + m), n_at(share, block, slot + m)
    return *slots, row_at(share, m), block * V3


def make_step(name: str, reset: tuple[Any, Any], update: tuple[Any, Any], clipped: bool = False) -> tuple[Any, Any]:
    """The kernels of a step's two phases. reset, update: a unit and its places. `clipped`: what the backward pass reads is
    saved by a unit of its own."""
    (reset_unit, reset_places), (update_unit, update_places) = reset, update

    def step(job, share, first, rows, s, slot):
        job, share = record(job), record(share)
        address_rows(job, share, first, rows, s)
        h = share.h + (s & 1) * share.h_plane + first * job.row
        descending = is_descending(share, s)
        panel = next_panel(share, descending)
        while panel >= 0:
            count = panels_here(share, panel)
            blocks = blocks_in(job, panel, count)
            if share.fused:
                gru_before_begin(job, share, share.x, share.x_row, rows, panel, count, descending)
            gru_before_gates(job, share, rows, h, descending, slot, panel, blocks)
            cells(reset_unit, reset_places, job, share, first, rows, s, slot, 2 * panel, blocks)
            panel = next_panel(share, descending)

    def second(job, share, first, rows, s, slot):
        job, share = record(job), record(share)
        address_rows(job, share, first, rows, s)
        rh = share.rh + first * job.row
        descending = is_descending(share, s)
        panel = next_panel(share, descending)
        while panel >= 0:
            blocks = blocks_in(job, panel, panels_here(share, panel))
            gru_before_candidate(job, share, rows, rh, descending, slot, panel, blocks)
            cells(update_unit, update_places, job, share, first, rows, s, slot, 2 * panel, blocks)
            if clipped and job.saved:
                cells(gru_before_clip_save, save_place, job, share, first, rows, s, slot, 2 * panel, blocks)
            panel = next_panel(share, descending)

    return named(name, step), named(f"{name}_second", second)


gru_before_step, gru_before_second = make_step(
    "gru_before_step", (gru_reset_unit, reset_place), (gru_before_unit, update_place)
)
gru_before_step_keep, gru_before_second_keep = make_step(
    "gru_before_step_keep", (gru_reset_unit_keep, reset_place_kept), (gru_before_unit_keep, update_place_kept)
)
gru_before_clip_step, gru_before_clip_second = make_step(
    "gru_before_clip_step",
    (gru_clip_reset_unit, reset_place_clipped),
    (gru_before_clip_unit, update_place_clipped),
    clipped=True,
)
