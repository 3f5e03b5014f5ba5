"""Gradients of the peepholes and of the projection, which few layers have: a task of its own after the recurrence."""

from ..codegen.descriptors import V1
from ..codegen.elementwise import add_product as add_product_of
from ..codegen.elementwise import clear_vector, store_units
from ..codegen.inline import called, inlined
from ..codegen.intrinsics import load_word, record
from .forward import outputs_in, units_in
from .weight_gradients import COLUMNS, DEPTH, PANELS, M, add_product, pack_columns, pack_panels, panels_of, sums_of


@inlined
def c_before(job, t, b, steps):
    """Gives the address of the c from which the step at time t started: a user's row or a padded one."""
    before = t + 1 if job.reverse else t - 1
    if before < 0 or before >= steps:
        return job.c_0 + b * job.c_b
    return job.saved_c + (before * job.B + b) * job.unit_row


@called
def peephole_gradients(job, share):
    """Sums the peepholes' gradients over all (t, b): p_f and p_i saw the c before a step, p_o the c after it."""
    item = V1 // job.lanes
    for block in range(share.panel_begin, share.panel_end):
        sums = share.slots
        count = units_in(job, block)
        for gate in range(3):
            clear_vector(job.zero, (sums + gate * V1, sums))
        for t in range(job.T):
            for b in range(job.B):
                steps = load_word(job.batch_lengths + 8 * b) if job.batch_lengths else job.T
                if t < steps:
                    kept = t * job.B + b
                    d = job.d_gates + kept * job.d_row + block * 4 * V1
                    before = c_before(job, t, b, steps) + block * V1
                    after = job.saved_c + kept * job.unit_row + block * V1
                    add_product_of(job.zero, (sums, d, before, count))
                    add_product_of(job.zero, (sums + V1, d + V1, before, count))
                    add_product_of(job.zero, (sums + 2 * V1, d + 2 * V1, after, count))
        for gate in range(3):
            to = job.d_peephole + (gate * job.H + block * job.lanes) * item
            store_units(job.zero, (to, sums + gate * V1, count))


@called
def projection_gradients(job, share):
    """Makes dW_p for the outputs in vectors [out_begin, out_end)."""
    panels, column = panels_of(job, job.H), share.slots + COLUMNS * V1
    for start in range(0, job.T * job.B, DEPTH):
        depth = min(DEPTH, job.T * job.B - start)
        for first in range(0, panels, PANELS):
            last = min(first + PANELS, panels)
            pack_panels(job, share, M, job.H, start, depth, first, last, 0)
            for block in range(share.out_begin, share.out_end):
                units, dw = outputs_in(job, block), job.dw_p + block * job.lanes * job.dw_p_row
                dh = job.saved_dh + start * job.unit_row + block * V1
                pack_columns(job, column, sums_of(job, share, share.panel_end), dh, job.unit_row, depth, 1)
                add_product(job, share, first, last, 0, job.H, column, units, start, depth, dw, job.dw_p_row)


def option_gradients(job, share):
    """Makes the peepholes' gradients for the units in panels [panel_begin, panel_end), and dW_p for the outputs in vectors
    [out_begin, out_end)."""
    job, share = record(job), record(share)
    if job.peephole:
        peephole_gradients(job, share)
    if job.w_p:
        projection_gradients(job, share)
