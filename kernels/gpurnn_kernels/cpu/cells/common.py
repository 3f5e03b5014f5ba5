"""What the steps of all cells share: where pre-activated gates lie, the products that make them, the loop over units.

A *slot* holds the pre-activated gates of one row at one step, in one panel. A share's slots lie `slot_row` bytes apart
within a panel, and `slot_panel` bytes apart from panel to panel: the rows of one panel side by side or, of a few rows
(`row_major`), the panels of one row, so that one product makes several. Shares of the same rows use the same slots, but for
a few rows. Steps that project their own x (`fused`) may have slots for one panel: all panels take them in turn, and they stay
in the first caches."""

from typing import Any

from ..codegen.bundle import BUNDLE, advanced, put, taken
from ..codegen.inline import inlined, named
from ..codegen.intrinsics import record
from ..passes.forward import ROW_ENTRY, V1, address_rows, next_group
from ..products.microkernel import multiply_in_turn


@inlined
def slot_at(share, panel, slot):
    return share.slots + (panel - share.slot_0) * share.slot_panel + slot * share.slot_row


@inlined
def is_descending(share, s):
    """Whether step s starts with the last panels: one step goes forth, the next one back, from the panels whose weights are
    still in cache; the first step of a call, too."""
    return (share.turn + s) & 1


@inlined
def next_panel(share, descending):
    """-> the first of the next panels to work on, `panels_here` it, -1 after the last ones."""
    group = next_group(share, descending)
    if group < 0:
        return group
    panel = share.panel_begin + group * share.at_once
    if share.slot_group:
        # slots of one group lie apart from those of the next one, which another thread may write to
        share.slots = share.slots_base + group * share.slot_group
        share.slots_n = share.slots_n_base + group * share.slot_group // 2
        share.slot_0 = panel
    return panel


@inlined
def panels_here(share, panel):
    """How many panels from this one on have their products made before the cell equations run over them."""
    return min(share.at_once, share.panel_end - panel)


@inlined
def whole_panels(job, panel, count):
    """Those of `count` panels from `panel` on in which each gate has vectors of its own."""
    return min(count, job.H // job.lanes - panel) if job.tail else count


@inlined
def gemm_bias(job, vectors, rows, a, a_row, count, w, depth, init, out, out_row, out_panel, descending):
    """out = init + a w, of `count` panels that lie side by side in `init`, where all rows have the same."""
    step = vectors * V1
    multiply_in_turn(
        job, vectors, rows, a, a_row, count, w, depth * step, depth, init, 0, step, out, out_row, out_panel, descending
    )


@inlined
def gemm_add(job, vectors, rows, a, a_row, count, w, depth, out, out_row, out_panel, descending):
    """out += a w, of `count` panels."""
    w_panel = depth * vectors * V1
    multiply_in_turn(
        job, vectors, rows, a, a_row, count, w, w_panel, depth, out, out_row, out_panel, out, out_row, out_panel, descending
    )


@inlined
def row_at(share, m):
    """What row m of a step writes to."""
    return share.row_table + m * ROW_ENTRY


@inlined
def each(unit, job, share, words, steps, count):
    """Runs `unit` `count` times over words that are `steps` apart: BUNDLE times at once, so that the latencies of the cell
    equations overlap."""
    if count >= BUNDLE:
        put(share.words, words, steps)
        while count >= BUNDLE:
            unit(job.zero, share.words)
            count -= BUNDLE
        words = taken(share.words, words)
    while count > 0:
        unit(job.zero, words)
        words = advanced(words, steps, 1)
        count -= 1


@inlined
def cells(unit, place, job, share, first, rows, s, slot, block, count):
    """Runs `unit` over all rows of `count` vectors of units, at the words that `place` gives: vector by vector; of a few rows,
    row by row."""
    row_major = share.row_major
    for line in range(rows if row_major else count):
        vector, m = (block, line) if row_major else (block + line, 0)
        next_vector, next_m = (vector + 1, m) if row_major else (vector, 1)
        words = place(job, share, first, s, slot, vector, m)
        steps = advanced(place(job, share, first, s, slot, next_vector, next_m), words, -1)
        each(unit, job, share, words, steps, count if row_major else rows)


def make_project(name: str, begin: Any) -> Any:
    """The kernel that projects a chunk of steps. begin: fills the slots of some panels with W_x x + b."""

    def project(job, share, x, x_row, slots, unused):
        job, share = record(job), record(share)
        panel = next_panel(share, 0)
        while panel >= 0:
            begin(job, share, x, x_row, slots, panel, panels_here(share, panel), 0)
            panel = next_panel(share, 0)

    return named(name, project)


def make_step(name: str, begin: Any, gates: Any, unit: Any, place: Any, save: tuple[Any, Any] | None = None) -> Any:
    """The kernel of a step with one product. begin: as of `make_project`, for steps that project their own x; gates: adds
    the product to the slots; unit, place: the cell equations, and what they take; save: the same of what the backward pass
    reads, where `unit` does not leave it."""
    saves = save is not None
    save_unit, save_place = save or (unit, place)

    def step(job, share, first, rows, s, slot):
        job, share = record(job), record(share)
        address_rows(job, share, first, rows, s)
        h = share.h + (s & 1) * share.h_plane + first * job.row
        descending = is_descending(share, s)
        panel = next_panel(share, descending)
        while panel >= 0:
            count = panels_here(share, panel)
            if share.fused:
                begin(job, share, share.x, share.x_row, rows, panel, count, descending)
            gates(job, share, rows, h, descending, slot, panel, count)
            cells(unit, place, job, share, first, rows, s, slot, panel, count)
            if saves and job.saved:
                cells(save_unit, save_place, job, share, first, rows, s, slot, panel, count)
            panel = next_panel(share, descending)

    return named(name, step)
