"""What the steps of all cells share: where pre-activated gates lie, the products that make them, the loop over units.

A *slot* holds the pre-activated gates of one row at one step, in one panel. A work's slots lie `slot_row` bytes apart within a
panel, and `slot_panel` bytes apart from panel to panel: the rows of one panel side by side or, of a few rows (`together`), the
panels of one row, so that one product makes several. Works that share rows share slots, too, but for a few rows. Steps that
project their own x (`fused`) may have slots for one panel: all panels take them in turn, and they stay in the first caches.
"""

from typing import Any

from ..codegen.bundle import BUNDLE, advanced, put, taken
from ..codegen.inline import inlined, named
from ..codegen.intrinsics import record
from ..passes.forward import ROW_ENTRY, V1, address_rows, take_group
from ..products.microkernel import multiply_in_turn


@inlined
def slot_at(work, panel, slot):  # type: ignore[no-untyped-def]
    return work.slots + (panel - work.slot_0) * work.slot_panel + slot * work.slot_row


@inlined
def goes_back(work, s):  # type: ignore[no-untyped-def]
    """Whether step s starts with the last panels: one step goes forth, the next one back, from the panels whose weights are
    still in cache; the first step of a call, too."""
    return (work.turn + s) & 1


@inlined
def take(work, back):  # type: ignore[no-untyped-def]
    """-> the first of the next panels to work on, `taken_from` it, -1 after the last ones."""
    group = take_group(work, back)
    if group < 0:
        return group
    panel = work.panel_0 + group * work.at_once
    if work.apart:
        # slots of one group lie apart from those of the next one, which another thread may write to
        work.slots = work.slots_base + group * work.apart
        work.slots_n = work.slots_n_base + group * work.apart // 2
        work.slot_0 = panel
    return panel


@inlined
def taken_from(work, panel):  # type: ignore[no-untyped-def]
    """How many panels from this one on have their products made before the cell equations run over them."""
    return min(work.at_once, work.panel_1 - panel)


@inlined
def whole_panels(job, panel, count):  # type: ignore[no-untyped-def]
    """Those of `count` panels from `panel` on in which each gate has vectors of its own."""
    return min(count, job.H // job.lanes - panel) if job.narrow else count


@inlined
def start(job, vectors, rows, a, a_row, count, w, depth, init, out, out_row, out_panel, back):  # type: ignore[no-untyped-def]
    """out = init + a w, of `count` panels that lie side by side in `init`, where all rows have the same."""
    step = vectors * V1
    multiply_in_turn(job, vectors, rows, a, a_row, count, w, depth * step, depth, init, 0, step, out, out_row, out_panel, back)


@inlined
def add(job, vectors, rows, a, a_row, count, w, depth, out, out_row, out_panel, back):  # type: ignore[no-untyped-def]
    """out += a w, of `count` panels."""
    w_panel = depth * vectors * V1
    multiply_in_turn(
        job, vectors, rows, a, a_row, count, w, w_panel, depth, out, out_row, out_panel, out, out_row, out_panel, back
    )


@inlined
def row_at(work, m):  # type: ignore[no-untyped-def]
    """What row m of a step writes to."""
    return work.row_table + m * ROW_ENTRY


@inlined
def each(unit, job, work, words, steps, count):  # type: ignore[no-untyped-def]
    """Runs `unit` `count` times over words that are `steps` apart: BUNDLE times at once, so that the latencies of the cell
    equations overlap."""
    if count >= BUNDLE:
        put(work.words, words, steps)
        while count >= BUNDLE:
            unit(job.zero, work.words)
            count -= BUNDLE
        words = taken(work.words, words)
    while count > 0:
        unit(job.zero, words)
        words = advanced(words, steps, 1)
        count -= 1


@inlined
def cells(unit, place, job, work, first, rows, s, slot, block, count):  # type: ignore[no-untyped-def]
    """Runs `unit` over all rows of `count` vectors of units, at the words that `place` gives: vector by vector; of a few rows,
    row by row."""
    together = work.together
    for line in range(rows if together else count):
        vector, m = (block, line) if together else (block + line, 0)
        next_vector, next_m = (vector + 1, m) if together else (vector, 1)
        words = place(job, work, first, s, slot, vector, m)
        steps = advanced(place(job, work, first, s, slot, next_vector, next_m), words, -1)
        each(unit, job, work, words, steps, count if together else rows)


def make_project(name: str, begin: Any) -> Any:
    """The kernel that projects a chunk of steps. begin: fills the slots of some panels with W_x x + b."""

    def project(job, work, x, x_row, slots, unused):  # type: ignore[no-untyped-def]
        job, work = record(job), record(work)
        panel = take(work, 0)
        while panel >= 0:
            begin(job, work, x, x_row, slots, panel, taken_from(work, panel), 0)
            panel = take(work, 0)

    return named(name, project)


def make_step(name: str, begin: Any, gates: Any, unit: Any, place: Any, save: tuple[Any, Any] | None = None) -> Any:
    """The kernel of a step with one product. begin: as of `make_project`, for steps that project their own x; gates: adds
    the product to the slots; unit, place: the cell equations, and what they take; save: the same of what the backward pass
    reads, where `unit` does not leave it."""
    saves = save is not None
    save_unit, save_place = save or (unit, place)

    def step(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
        job, work = record(job), record(work)
        address_rows(job, work, first, rows, s)
        h = job.h + (s & 1) * job.h_plane + first * job.row
        back = goes_back(work, s)
        panel = take(work, back)
        while panel >= 0:
            count = taken_from(work, panel)
            if work.fused:
                begin(job, work, work.x, work.x_row, rows, panel, count, back)
            gates(job, work, rows, h, back, slot, panel, count)
            cells(unit, place, job, work, first, rows, s, slot, panel, count)
            if saves and job.saved:
                cells(save_unit, save_place, job, work, first, rows, s, slot, panel, count)
            panel = take(work, back)

    return named(name, step)
