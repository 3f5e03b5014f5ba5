"""The forward pass of the GRU with the reset before: a chunk of steps projected, and one step.

Panels are pairs of vectors of units. slot: z r z r; n n in a slot of its own, half as large. A step has two products: r must
be known of all units before W_hn multiplies r * h.
"""

from typing import Any

from ..codegen.inline import inlined, named
from ..codegen.intrinsics import record
from ..passes.forward import V1, V2, V3, V4, address_rows
from .common import add, cells, goes_back, make_project, row_at, slot_at, start, take, taken_from
from .pointwise import gru_before_unit, gru_before_unit_keep, gru_reset_unit, gru_reset_unit_keep
from .pointwise_options import gru_before_clip_save, gru_before_clip_unit, gru_clip_reset_unit


@inlined
def slot_n_at(work, panel, slot):  # type: ignore[no-untyped-def]
    """Of n n: as `slot_at`, half as far apart."""
    return work.slots_n + ((panel - work.slot_0) * work.slot_panel + slot * work.slot_row) // 2


@inlined
def blocks_in(job, panel, count):  # type: ignore[no-untyped-def]
    """Vectors of units in `count` panels from `panel` on."""
    return min(2 * count, -(-job.H // job.lanes) - 2 * panel)


@inlined
def gru_before_begin(job, work, x, x_row, slots, panel, count, back):  # type: ignore[no-untyped-def]
    """W_x x + b, into slots from the first one on."""
    blocks = blocks_in(job, panel, count)
    pairs = blocks // 2
    w, b, out = job.w_x + panel * job.I * V4, job.b + panel * V4, slot_at(work, panel, 0)
    start(job, job.wide, slots, x, x_row, 4 * pairs // job.wide, w, job.I, b, out, work.slot_row, job.wide * V1, back)
    if blocks & 1:
        w += pairs * job.I * V4
        start(job, 2, slots, x, x_row, 1, w, job.I, b + pairs * V4, out + pairs * V4, work.slot_row, 0, 0)
    begin_candidate(job, work, x, x_row, slots, panel, blocks, back)


@inlined
def begin_candidate(job, work, x, x_row, slots, panel, blocks, back):  # type: ignore[no-untyped-def]
    """W_xn x + b_n, alike."""
    pairs, row = blocks // 2, work.slot_row // 2
    w, b, out = job.w_x_n + panel * job.I * V2, job.b_n + panel * V2, slot_n_at(work, panel, 0)
    start(job, 2, slots, x, x_row, pairs, w, job.I, b, out, row, V2, back)
    if blocks & 1:
        w += pairs * job.I * V2
        start(job, 1, slots, x, x_row, 1, w, job.I, b + pairs * V2, out + pairs * V2, row, 0, 0)


gru_before_project = make_project("gru_before_project", gru_before_begin)


@inlined
def gru_before_gates(job, work, rows, h, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    """Adds W_hz h and W_hr h to the slots of one step."""
    pairs = blocks // 2
    w, at = job.w_h + panel * job.H * V4, slot_at(work, panel, slot)
    add(job, job.wide, rows, h, job.row, 4 * pairs // job.wide, w, job.H, at, work.slot_row, job.wide * V1, back)
    if blocks & 1:
        w += pairs * job.H * V4
        add(job, 2, rows, h, job.row, 1, w, job.H, at + pairs * V4, work.slot_row, 0, 0)


@inlined
def gru_before_candidate(job, work, rows, rh, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    """Adds W_hn (r * h) to the slots of one step."""
    pairs = blocks // 2
    w, at = job.w_h_n + panel * job.H * V2, slot_n_at(work, panel, slot)
    add(job, 2, rows, rh, job.row, pairs, w, job.H, at, work.slot_row // 2, V2, back)
    if blocks & 1:
        w += pairs * job.H * V2
        add(job, 1, rows, rh, job.row, 1, w, job.H, at + pairs * V2, work.slot_row // 2, 0, 0)


@inlined
def z_at(job, work, block, slot):  # type: ignore[no-untyped-def]
    return slot_at(work, block // 2, slot) + (block & 1) * V2


@inlined
def r_at(job, work, block, slot):  # type: ignore[no-untyped-def]
    return z_at(job, work, block, slot) + V1


@inlined
def n_at(work, block, slot):  # type: ignore[no-untyped-def]
    return slot_n_at(work, block // 2, slot) + (block & 1) * V1


@inlined
def reset_place(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    """What `gru_reset_unit` takes for row m of a vector of units."""
    at = (first + m) * job.row + block * V1
    return r_at(job, work, block, slot + m), job.h + (s & 1) * job.h_plane + at, job.rh + at


@inlined
def reset_place_kept(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    return *reset_place(job, work, first, s, slot, block, m), row_at(work, m), block * V3


@inlined
def reset_place_clipped(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    return *reset_place(job, work, first, s, slot, block, m), job.limit


@inlined
def update_place(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    """What `gru_before_unit` takes."""
    unit = block * V1
    at = (first + m) * job.row + unit
    slots = z_at(job, work, block, slot + m), n_at(work, block, slot + m)
    h, h_out = job.h + (s & 1) * job.h_plane + at, job.h + (~s & 1) * job.h_plane + at
    return *slots, h, h_out, row_at(work, m), unit, job.H - block * job.lanes


@inlined
def update_place_kept(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    return *update_place(job, work, first, s, slot, block, m), block * V3


@inlined
def update_place_clipped(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    return *update_place(job, work, first, s, slot, block, m), job.limit


@inlined
def save_place(job, work, first, s, slot, block, m):  # type: ignore[no-untyped-def]
    """What `gru_before_clip_save` takes."""
    slots = z_at(job, work, block, slot + m), r_at(job, work, block, slot + m), n_at(work, block, slot + m)
    return *slots, row_at(work, m), block * V3


def make_step(name: str, reset: tuple[Any, Any], update: tuple[Any, Any], clipped: bool = False) -> tuple[Any, Any]:
    """The kernels of a step's two phases. reset, update: a unit and its places. `clipped`: what the backward pass reads is
    saved by a unit of its own."""
    (reset_unit, reset_places), (update_unit, update_places) = reset, update

    def step(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
        job, work = record(job), record(work)
        address_rows(job, work, first, rows, s)
        h = job.h + (s & 1) * job.h_plane + first * job.row
        back = goes_back(work, s)
        panel = take(work, back)
        while panel >= 0:
            count = taken_from(work, panel)
            blocks = blocks_in(job, panel, count)
            if work.fused:
                gru_before_begin(job, work, work.x, work.x_row, rows, panel, count, back)
            gru_before_gates(job, work, rows, h, back, slot, panel, blocks)
            cells(reset_unit, reset_places, job, work, first, rows, s, slot, 2 * panel, blocks)
            panel = take(work, back)

    def second(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
        job, work = record(job), record(work)
        address_rows(job, work, first, rows, s)
        rh = job.rh + first * job.row
        back = goes_back(work, s)
        panel = take(work, back)
        while panel >= 0:
            blocks = blocks_in(job, panel, taken_from(work, panel))
            gru_before_candidate(job, work, rows, rh, back, slot, panel, blocks)
            cells(update_unit, update_places, job, work, first, rows, s, slot, 2 * panel, blocks)
            if clipped and job.saved:
                cells(gru_before_clip_save, save_place, job, work, first, rows, s, slot, 2 * panel, blocks)
            panel = take(work, back)

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
