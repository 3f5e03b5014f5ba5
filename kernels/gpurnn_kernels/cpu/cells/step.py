"""The parts that all cells' steps share: the next panel, the loops over units and rows, and the kernels of steps with one
product."""

from typing import Any

from ..codegen.bundle import BUNDLE, advanced, put, taken
from ..codegen.inline import inlined, named
from ..codegen.intrinsics import record
from ..passes.backward import add_output_gradient, blocks, recurrent_product
from ..passes.forward import address_rows, next_group, saved_row
from ..products.gemm import NR_BACK
from ..products.product import as_read


@inlined
def is_descending(share, s):
    """Tells whether step s starts with the last panels. One step goes forth, the next one back, from the panels whose
    weights are still in cache; so does the first step of a call after the one before."""
    return (share.turn + s) & 1


@inlined
def next_panel(share, descending):
    """Gives the first of the next panels to work on, -1 after the last ones. `panels_here` says how many panels go with it."""
    group = next_group(share, descending)
    if group < 0:
        return group
    panel = share.panel_begin + group * share.at_once
    if share.slot_group:
        # slots of one group lie apart from those of the next one, which another thread may write to
        share.slots = share.slots_base + group * share.slot_group
        share.slots_n = share.slots_n_base + group * share.slot_n_group
        share.slot_0 = panel
    return panel


@inlined
def panels_here(share, panel):
    """Gives how many panels from this one on have their products made before the cell equations run over them."""
    return min(share.at_once, share.panel_end - panel)


@inlined
def each(run, job, share, words, steps, count):
    """Runs a kernel `count` times over words that are `steps` apart, BUNDLE times at once, so that the latencies of the
    cell equations overlap."""
    if count >= BUNDLE:
        put(share.words, words, steps)
        while count >= BUNDLE:
            run(job.zero, share.words)
            count -= BUNDLE
        words = taken(share.words, words)
    while count > 0:
        run(job.zero, words)
        words = advanced(words, steps, 1)
        count -= 1


def over_rows(form: Any) -> Any:
    """Makes a kernel's loop over all rows of `count` vectors of units: vector by vector or, row_major, row by row."""
    run, words_at = form

    @inlined
    def cells(job, share, first, rows, s, slot, block, count):
        row_major = share.row_major
        for line in range(rows if row_major else count):
            vector, m = (block, line) if row_major else (block + line, 0)
            next_vector, next_m = (vector + 1, m) if row_major else (vector, 1)
            words = words_at(job, share, first + m, m, s, slot + m, None, vector)
            following = words_at(job, share, first + next_m, next_m, s, slot + next_m, None, next_vector)
            each(run, job, share, words, advanced(following, words, -1), count if row_major else rows)

    return cells


def over_blocks(form: Any) -> Any:
    """Makes a kernel's loop, in the backward pass, over the vectors of `count` panels of units, row by row. `plane` is the
    address of the first row's gates' gradients that the recurrent product reads; plane_row is the bytes between rows."""
    run, words_at = form

    @inlined
    def cells(job, share, first, rows, s, plane, plane_row, panel, count):
        block, last = panel * NR_BACK, min((panel + count) * NR_BACK, blocks(job))
        for m in range(rows):
            words = words_at(job, share, first + m, None, s, None, plane + m * plane_row, block)
            following = words_at(job, share, first + m, None, s, None, plane + m * plane_row, block + 1)
            each(run, job, share, words, advanced(following, words, -1), last - block)

    return cells


def make_project(name: str, begin: Any) -> Any:
    """Makes the kernel that projects a chunk of steps. `begin` fills the slots of some panels with W_x x + b."""

    def project(job, share, x, x_row, slots, unused):
        job, share = record(job), record(share)
        panel = next_panel(share, 0)
        while panel >= 0:
            begin(job, share, x, x_row, slots, panel, panels_here(share, panel), 0)
            panel = next_panel(share, 0)

    return named(name, project)


def make_step(name: str, begin: Any, add_to: Any, form: Any) -> Any:
    """Makes the kernel of a step with one product. `begin` is that of `make_project`, for steps that project their own x;
    `add_to` adds the product to the slots; `form` is the equations."""
    cells = over_rows(form)

    def step(job, share, first, rows, s, slot):
        job, share = record(job), record(share)
        address_rows(job, share, first, rows, s)
        h, h_row = as_read(job, share, share.h + (s & 1) * share.h_plane + first * job.row, rows, job.P)
        descending = is_descending(share, s)
        panel = next_panel(share, descending)
        while panel >= 0:
            count = panels_here(share, panel)
            if share.fused:
                begin(job, share, share.x, share.x_row, rows, panel, count, descending)  # 1. W_x x + b, of a stream
            add_to(job, share, rows, h, h_row, descending, slot, panel, count)  # 2. W_h h
            cells(job, share, first, rows, s, slot, panel, count)  # 3. the equations
            panel = next_panel(share, descending)

    return named(name, step)


@inlined
def complete_dh(job, share, first, rows, s, before, after, after_row, gates, panel, count):
    """Adds to dh of `count` panels the product of the gates' gradients of step s + 1, at `after`, with W_h, and dy of step
    s."""
    if before > 0:
        dh = job.dh + first * job.row
        recurrent_product(job, share, before, s + 1, after, after_row, gates, job.w_h, dh, panel, count)
    if job.dy and s >= 0:
        add_output_gradient(job, first, rows, s, panel * NR_BACK, min((panel + count) * NR_BACK, blocks(job)))


@inlined
def plane_at(job, first, s):
    """Gives the address and the row stride, in bytes, of a step's gates' gradients for the recurrent product, in a plane of
    the step's own."""
    return job.step + (s & 1) * job.step_plane + first * job.step_row, job.step_row


@inlined
def plane_of_all(job, first, s):
    """Gives the same as `plane_at`, but where dW reads the gradients, if all rows are at one time and so lie side by side
    there."""
    if job.order:
        return plane_at(job, first, s)
    return job.d_gates + saved_row(job, first, s) * job.d_row, job.d_row


def make_step_back(name: str, form: Any, gates: int, plane_of: Any) -> Any:
    """Makes the kernel of a step back with one product, of `gates` gates. `plane_of` finds the step's gates' gradients."""
    cells = over_blocks(form)

    def step_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        (plane, plane_row), (after, _) = plane_of(job, first, s), plane_of(job, first, s + 1)
        panel = next_panel(share, s & 1)
        while panel >= 0:
            count = panels_here(share, panel)
            complete_dh(job, share, first, rows, s, before, after, plane_row, gates, panel, count)  # 1. dh
            if s >= 0:
                cells(job, share, first, rows, s, plane, plane_row, panel, count)  # 2. the gates' gradients
            panel = next_panel(share, s & 1)

    return named(name, step_back)
