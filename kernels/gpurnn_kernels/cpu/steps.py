"""What the forward pass does for each cell: a chunk of steps projected, and one step.

slots: of the pre-activated gates, `capacity` to a panel; slot: the first of a step's.
"""

from typing import Any

from .barrier import meet
from .forward import V1, V2, V3, V4, saved_row, units_in
from .inline import called, inlined
from .memory import load_word
from .pointwise import (
    copy_vector,
    gru_after_part,
    gru_after_spread,
    gru_after_unit,
    gru_after_unit_keep,
    gru_before_unit,
    gru_before_unit_keep,
    gru_reset_unit,
    gru_reset_unit_keep,
    lstm_spread,
    lstm_unit,
    lstm_unit_keep,
)
from .pointwise_options import (
    gru_after_clip_save,
    gru_after_clip_unit,
    gru_before_clip_save,
    gru_before_clip_unit,
    gru_clip_reset_unit,
)
from .tiles import multiply


@inlined
def panel_at(work, index, s):  # type: ignore[no-untyped-def]
    """The index-th panel of a step: one step from the first on, the next from the last, whose weights are still in cache."""
    return work.panel_1 - 1 - index if s & 1 else work.panel_0 + index


@inlined
def narrow_in(job, panel):  # type: ignore[no-untyped-def]
    """Vectors that the gates in a panel share; 0 if each has its own."""
    return job.narrow if panel == job.H // job.lanes else 0


@called
def multiply_narrow(job, vectors, rows, a, a_row, w, depth, init, init_row, out):  # type: ignore[no-untyped-def]
    """`multiply` where gates share one or two vectors."""
    if vectors == 1:
        multiply(1, job.zero, (rows, a, a_row, w, depth, init, init_row, out, V4))
    else:
        multiply(2, job.zero, (rows, a, a_row, w, depth, init, init_row, out, V4))


@inlined
def lstm_project(job, work, x, x_row, slots):  # type: ignore[no-untyped-def]
    for panel in range(work.panel_0, work.panel_1):
        out = work.slots + (panel - work.panel_0) * work.capacity * V4
        w = job.w_x + panel * job.I * V4
        narrow = narrow_in(job, panel)
        if narrow:
            multiply_narrow(job, narrow, slots, x, x_row, w, job.I, job.b + panel * V4, 0, out)
        else:
            multiply(4, job.zero, (slots, x, x_row, w, job.I, job.b + panel * V4, 0, out, V4))


@inlined
def lstm_step(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
    h = job.h + (s & 1) * job.h_plane + first * job.row
    h_out = job.h + (~s & 1) * job.h_plane + first * job.row
    for index in range(work.panel_1 - work.panel_0):
        panel = panel_at(work, index, s)
        at = work.slots + ((panel - work.panel_0) * work.capacity + slot) * V4
        w = job.w_h + panel * job.H * V4
        narrow = narrow_in(job, panel)
        if narrow:
            multiply_narrow(job, narrow, rows, h, job.row, w, job.H, at, V4, at)
            for m in range(rows):
                lstm_spread(job.zero, (at + m * V4, job.H % job.lanes))
        else:
            multiply(4, job.zero, (rows, h, job.row, w, job.H, at, V4, at, V4))
        unit = panel * V1
        count = units_in(job, panel)
        for m in range(rows):
            c = job.c + (first + m) * job.row + unit
            y = load_word(work.row_addresses + 8 * m) + unit
            addresses = (at + m * V4, c, h_out + m * job.row + unit, y)
            if job.saved:
                kept = saved_row(job, first + m, s)
                saved = job.saved + kept * job.saved_row + panel * V4
                lstm_unit_keep(job.zero, (*addresses, saved, job.saved_c + kept * job.kept_row + unit, count))
            else:
                lstm_unit(job.zero, (*addresses, count))


@inlined
def gru_after_project(job, work, x, x_row, slots):  # type: ignore[no-untyped-def]
    for panel in range(work.panel_0, work.panel_1):
        out = work.slots + (panel - work.panel_0) * work.capacity * V4
        w = job.w_x + panel * job.I * V3
        narrow = narrow_in(job, panel)
        if narrow:
            multiply_narrow(job, narrow, slots, x, x_row, w, job.I, job.b + panel * V3, 0, out)
            for slot in range(slots):
                gru_after_part(job.zero, (out + slot * V4, job.b_n + panel * V1, job.H % job.lanes))
        else:
            multiply(3, job.zero, (slots, x, x_row, w, job.I, job.b + panel * V3, 0, out, V4))
            for slot in range(slots):
                copy_vector(job.zero, (out + slot * V4 + V3, job.b_n + panel * V1))


def make_gru_after_step(clip: bool) -> Any:
    """The step with or without a clip: `clip` is a constant of the kernel."""

    @inlined
    def gru_after_step(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
        h = job.h + (s & 1) * job.h_plane + first * job.row
        h_out = job.h + (~s & 1) * job.h_plane + first * job.row
        for index in range(work.panel_1 - work.panel_0):
            panel = panel_at(work, index, s)
            at = work.slots + ((panel - work.panel_0) * work.capacity + slot) * V4
            w = job.w_h + panel * job.H * V3
            narrow = 0 if clip else narrow_in(job, panel)
            if narrow:
                multiply_narrow(job, narrow, rows, h, job.row, w, job.H, at, V4, at)
                for m in range(rows):
                    gru_after_spread(job.zero, (at + m * V4, job.H % job.lanes))
            else:
                zrq = at + V1
                multiply(3, job.zero, (rows, h, job.row, w, job.H, zrq, V4, zrq, V4))
            unit = panel * V1
            count = units_in(job, panel)
            for m in range(rows):
                row = m * job.row + unit
                y = load_word(work.row_addresses + 8 * m) + unit
                addresses = (at + m * V4, h + row, h_out + row, y)
                saved = job.saved + saved_row(job, first + m, s) * job.saved_row + panel * V4
                if clip:
                    gru_after_clip_unit(job.zero, (*addresses, count, job.limit))
                    if job.saved:
                        gru_after_clip_save(job.zero, (at + m * V4, saved))
                elif job.saved:
                    gru_after_unit_keep(job.zero, (*addresses, saved, count))
                else:
                    gru_after_unit(job.zero, (*addresses, count))

    return gru_after_step


gru_after_step = make_gru_after_step(clip=False)
gru_after_clip_step = make_gru_after_step(clip=True)


@inlined
def blocks_in(job, panel):  # type: ignore[no-untyped-def]
    """Vectors of units in a panel of two."""
    return min(2, -(-job.H // job.lanes) - 2 * panel)


@inlined
def gru_before_project(job, work, x, x_row, slots):  # type: ignore[no-untyped-def]
    for panel in range(work.panel_0, work.panel_1):
        out = work.slots + (panel - work.panel_0) * work.capacity * V4
        out_n = work.slots_n + (panel - work.panel_0) * work.capacity * V2
        w = job.w_x + panel * job.I * V4
        w_n = job.w_x_n + panel * job.I * V2
        b = job.b + panel * V4
        b_n = job.b_n + panel * V2
        if blocks_in(job, panel) == 2:
            multiply(4, job.zero, (slots, x, x_row, w, job.I, b, 0, out, V4))
            multiply(2, job.zero, (slots, x, x_row, w_n, job.I, b_n, 0, out_n, V2))
        else:
            multiply(2, job.zero, (slots, x, x_row, w, job.I, b, 0, out, V4))
            multiply(1, job.zero, (slots, x, x_row, w_n, job.I, b_n, 0, out_n, V2))


def make_gru_before_step(clip: bool) -> Any:
    """The step with or without a clip: `clip` is a constant of the kernel."""

    @inlined
    def gru_before_step(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
        h = job.h + (s & 1) * job.h_plane + first * job.row
        h_out = job.h + (~s & 1) * job.h_plane + first * job.row
        rh = job.rh + first * job.row
        for index in range(work.panel_1 - work.panel_0):
            panel = panel_at(work, index, s)
            at = work.slots + ((panel - work.panel_0) * work.capacity + slot) * V4
            w = job.w_h + panel * job.H * V4
            blocks = blocks_in(job, panel)
            if blocks == 2:
                multiply(4, job.zero, (rows, h, job.row, w, job.H, at, V4, at, V4))
            else:
                multiply(2, job.zero, (rows, h, job.row, w, job.H, at, V4, at, V4))
            for m in range(rows):
                for block in range(blocks):
                    row = m * job.row + panel * V2 + block * V1
                    reset = (at + m * V4 + block * V2, h + row, rh + row)
                    if clip:
                        gru_clip_reset_unit(job.zero, (*reset, job.limit))
                    elif job.saved:
                        saved = job.saved + saved_row(job, first + m, s) * job.saved_row + (2 * panel + block) * V3
                        gru_reset_unit_keep(job.zero, (*reset, saved))
                    else:
                        gru_reset_unit(job.zero, reset)
        meet(work)
        for index in range(work.panel_1 - work.panel_0):
            panel = panel_at(work, index, s)
            at = work.slots + ((panel - work.panel_0) * work.capacity + slot) * V4
            at_n = work.slots_n + ((panel - work.panel_0) * work.capacity + slot) * V2
            w_n = job.w_h_n + panel * job.H * V2
            blocks = blocks_in(job, panel)
            if blocks == 2:
                multiply(2, job.zero, (rows, rh, job.row, w_n, job.H, at_n, V2, at_n, V2))
            else:
                multiply(1, job.zero, (rows, rh, job.row, w_n, job.H, at_n, V2, at_n, V2))
            for m in range(rows):
                for block in range(blocks):
                    unit = panel * V2 + block * V1
                    row = m * job.row + unit
                    y = load_word(work.row_addresses + 8 * m) + unit
                    zr = at + m * V4 + block * V2
                    n = at_n + m * V2 + block * V1
                    count = units_in(job, 2 * panel + block)
                    addresses = (zr, n, h + row, h_out + row, y)
                    saved = job.saved + saved_row(job, first + m, s) * job.saved_row + (2 * panel + block) * V3
                    if clip:
                        gru_before_clip_unit(job.zero, (*addresses, count, job.limit))
                        if job.saved:
                            gru_before_clip_save(job.zero, (zr, n, saved))
                    elif job.saved:
                        gru_before_unit_keep(job.zero, (*addresses, saved, count))
                    else:
                        gru_before_unit(job.zero, (*addresses, count))

    return gru_before_step


gru_before_step = make_gru_before_step(clip=False)
gru_before_clip_step = make_gru_before_step(clip=True)
