"""What the steps of all cells share: where pre-activated gates lie, the products that make them, the loop over units.

A *slot* holds the pre-activated gates of one row at one step, in one panel. A work's slots lie `slot_row` bytes apart within a
panel, and `slot_panel` bytes apart from panel to panel: the rows of one panel side by side or, of a few rows (`together`), the
panels of one row, so that one product makes them all.
"""

from .forward import V1
from .inline import inlined
from .target import target
from .tiles import multiply

WIDE = target().wide
VW = WIDE * V1
PARTS = 4 // WIDE  # wide panels that hold four vectors


@inlined
def slot_at(work, panel, slot):  # type: ignore[no-untyped-def]
    return work.slots + (panel - work.panel_0) * work.slot_panel + slot * work.slot_row


@inlined
def panels_at_once(work):  # type: ignore[no-untyped-def]
    """Panels whose products are made before the cell equations run over them."""
    return work.panel_1 - work.panel_0 if work.together else 1


@inlined
def panel_at(work, index, s):  # type: ignore[no-untyped-def]
    """The first of the panels that come after `index` others: one step goes forth, the next one back, from the panels whose
    weights are still in cache."""
    return work.panel_1 - 1 - index if s & 1 and not work.together else work.panel_0 + index


@inlined
def whole_panels(job, panel, count):  # type: ignore[no-untyped-def]
    """Those of `count` panels from `panel` on in which each gate has vectors of its own."""
    return min(count, job.H // job.lanes - panel) if job.narrow else count


@inlined
def start(job, vectors, rows, a, a_row, count, w, depth, init, out, out_row, out_panel):  # type: ignore[no-untyped-def]
    """out = init + a w, of `count` panels that lie side by side in `init`, where all rows have the same."""
    step = vectors * V1
    multiply(job, vectors, rows, a, a_row, count, w, depth * step, depth, init, 0, step, out, out_row, out_panel)


@inlined
def add(job, vectors, rows, a, a_row, count, w, depth, out, out_row, out_panel, back):  # type: ignore[no-untyped-def]
    """out += a w, of `count` panels, the first one first or, going `back`, last."""
    w_panel = depth * vectors * V1
    if back:
        w += (count - 1) * w_panel
        out += (count - 1) * out_panel
        w_panel = -w_panel
        out_panel = -out_panel
    multiply(job, vectors, rows, a, a_row, count, w, w_panel, depth, out, out_row, out_panel, out, out_row, out_panel)


@inlined
def after(rows, vector, m):  # type: ignore[no-untyped-def]
    """The item after row m of a vector of units: the next row, or the first row of the next vector."""
    last = m + 1 == rows
    return vector + 1 if last else vector, 0 if last else m + 1


@inlined
def each(unit, place, job, work, first, rows, s, slot, vector, count):  # type: ignore[no-untyped-def]
    """Runs `unit` over all rows of `count` vectors of units, at the addresses that `place` gives: four at a time, so that the
    latencies of the cell equations overlap."""
    left = rows * count
    m = 0
    while left >= 4:
        v1, m1 = after(rows, vector, m)
        v2, m2 = after(rows, v1, m1)
        v3, m3 = after(rows, v2, m2)
        four = (
            place(job, work, first, s, slot, vector, m),
            place(job, work, first, s, slot, v1, m1),
            place(job, work, first, s, slot, v2, m2),
            place(job, work, first, s, slot, v3, m3),
        )
        unit(job.zero, four)
        vector, m = after(rows, v3, m3)
        left -= 4
    while left > 0:
        unit(job.zero, place(job, work, first, s, slot, vector, m))
        vector, m = after(rows, vector, m)
        left -= 1
