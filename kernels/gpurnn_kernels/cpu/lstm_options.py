"""The steps of LSTM layers with peepholes, a clip or a projection, in any combination, forward and backward.

The loops around them are those of forward.py, backward.py and weight_gradients.py. A projected layer has h = W_p m with
m = o * tanh(c): one product and one meeting of threads more in each step. Panels of that product are four vectors of h.
"""

from .backward import blocks, lstm_plane, product
from .barrier import meet
from .forward import V1, V3, V4, first_block, last_block, outputs_in, saved_row, units_in
from .inline import called, inlined
from .memory import load_word
from .pointwise import clear_vector, copy_vector, store_units
from .pointwise_options import (
    add_product,
    copy_gates,
    lstm_options_unit,
    lstm_options_unit_grad,
    lstm_peephole_unit,
    lstm_peephole_unit_grad,
)
from .steps import panel_at
from .tiles import multiply
from .weight_gradients import M, add_products, weight_gradients


@inlined
def output_blocks(job):  # type: ignore[no-untyped-def]
    """Vectors that hold a row of h."""
    return -(-job.P // job.lanes)


@called
def output_product(job, work, rows, a, a_row, w, depth, init, init_row, out):  # type: ignore[no-untyped-def]
    """out = init + a W, for this work's vectors of h."""
    for panel in range(work.out_0 // 4, -(-work.out_1 // 4)):
        product(job, panel, output_blocks(job), rows, a, a_row, w, depth, init, init_row, out, job.row)


@inlined
def zeros_at(job, panel):  # type: ignore[no-untyped-def]
    """What `product` takes as `init` for a panel that starts from zeros."""
    return job.zeros - panel * V4


@called
def project_m(job, work, rows, m, h_out):  # type: ignore[no-untyped-def]
    """h = W_p m, for this work's vectors of h."""
    for panel in range(work.out_0 // 4, -(-work.out_1 // 4)):
        init = zeros_at(job, panel)
        product(job, panel, output_blocks(job), rows, m, job.row, job.w_p, job.H, init, 0, h_out, job.row)


@inlined
def lstm_options_step(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
    h = job.h + (s & 1) * job.h_plane + first * job.row
    h_out = job.h + (~s & 1) * job.h_plane + first * job.row
    out = job.m + first * job.row if job.w_p else h_out
    for index in range(work.panel_1 - work.panel_0):
        panel = panel_at(work, index, s)
        at = work.slots + ((panel - work.panel_0) * work.capacity + slot) * V4
        multiply(4, job.zero, (rows, h, job.row, job.w_h + panel * job.P * V4, job.P, at, V4, at, V4))
        unit = panel * V1
        for m in range(rows):
            c = job.c + (first + m) * job.row + unit
            if job.peephole:
                peephole = job.peephole + panel * V3
                lstm_peephole_unit(job.zero, (at + m * V4, c, out + m * job.row + unit, job.limit, peephole))
            else:
                lstm_options_unit(job.zero, (at + m * V4, c, out + m * job.row + unit, job.limit))
        if job.saved:
            for m in range(rows):
                kept = saved_row(job, first + m, s)
                copy_gates(job.zero, (job.saved + kept * job.saved_row + panel * V4, at + m * V4))
                kept = kept * job.kept_row + unit
                copy_vector(job.zero, (job.saved_c + kept, job.c + (first + m) * job.row + unit))
                if job.w_p:
                    copy_vector(job.zero, (job.saved_m + kept, out + m * job.row + unit))
    if job.w_p:
        meet(work)
        project_m(job, work, rows, out, h_out)
    for m in range(rows):
        y = load_word(work.row_addresses + 8 * m)
        for block in range(work.out_0, work.out_1):
            store_units(job.zero, (y + block * V1, h_out + m * job.row + block * V1, outputs_in(job, block)))


@called
def take_dh(job, work, first, rows, s):  # type: ignore[no-untyped-def]
    """Hands on dh, which becomes the start of the sum for dh_prev: to the product with W_p, and to dW_p."""
    for m in range(rows):
        row = first + m
        kept = saved_row(job, row, s) * job.kept_row
        for block in range(work.out_0, work.out_1):
            dh = job.dh + row * job.row + block * V1
            copy_vector(job.zero, (job.dh_step + row * job.row + block * V1, dh))
            copy_vector(job.zero, (job.saved_dh + kept + block * V1, dh))
            clear_vector(job.zero, (dh, dh))


@called
def m_gradients(job, work, first, rows):  # type: ignore[no-untyped-def]
    """dm = dh W_p, for this work's units."""
    dh = job.dh_step + first * job.row
    dm = job.dm + first * job.row
    depth = output_blocks(job) * job.lanes
    for panel in range(work.panel_0, work.panel_1):
        product(job, panel, blocks(job), rows, dh, job.row, job.w_p, depth, zeros_at(job, panel), 0, dm, job.row)


@inlined
def lstm_options_step_back(job, work, first, rows, s):  # type: ignore[no-untyped-def]
    plane, plane_row = lstm_plane(job, first, s)
    into = job.dh
    if job.w_p:
        into = job.dm
        take_dh(job, work, first, rows, s)
        meet(work)
        m_gradients(job, work, first, rows)
    for m in range(rows):
        row = first + m
        kept = saved_row(job, row, s)
        for block in range(first_block(work), last_block(job, work)):
            unit = block * V1
            before = job.c + row * job.row + unit
            if s > 0:
                before = job.saved_c + saved_row(job, row, s - 1) * job.kept_row + unit
            addresses = (
                job.saved + kept * job.saved_row + block * V4,
                before,
                job.saved_c + kept * job.kept_row + unit,
                into + row * job.row + unit,
                job.dc + row * job.row + unit,
                plane + m * plane_row + block * V4,
                job.d_gates + kept * job.d_row + block * V4,
                job.limit,
            )
            if job.peephole:
                lstm_peephole_unit_grad(job.zero, (*addresses, job.peephole + block * V3))
            else:
                lstm_options_unit_grad(job.zero, addresses)
    meet(work)
    depth = 4 * blocks(job) * job.lanes
    dh = job.dh + first * job.row
    output_product(job, work, rows, plane, plane_row, job.w_h, depth, dh, job.row, dh)


@inlined
def c_before(job, t, b, steps):  # type: ignore[no-untyped-def]
    """The address of the c that the step at time t started from, a user's row or padded."""
    before = t + 1 if job.reverse else t - 1
    if before < 0 or before >= steps:
        return job.c_0 + b * job.c_b
    return job.saved_c + (before * job.B + b) * job.kept_row


@called
def peephole_gradients(job, work):  # type: ignore[no-untyped-def]
    """p_f and p_i saw the c before a step, p_o the c after it."""
    item = V1 // job.lanes
    for block in range(work.panel_0, work.panel_1):
        sums = work.slots
        count = units_in(job, block)
        for gate in range(3):
            clear_vector(job.zero, (sums + gate * V1, sums))
        for t in range(job.T):
            for b in range(job.B):
                steps = load_word(job.batch_lengths + 8 * b) if job.batch_lengths else job.T
                if t < steps:
                    kept = t * job.B + b
                    d = job.d_gates + kept * job.d_row + block * V4
                    before = c_before(job, t, b, steps) + block * V1
                    after = job.saved_c + kept * job.kept_row + block * V1
                    add_product(job.zero, (sums, d, before, count))
                    add_product(job.zero, (sums + V1, d + V1, before, count))
                    add_product(job.zero, (sums + 2 * V1, d + 2 * V1, after, count))
        for gate in range(3):
            to = job.d_peephole + (gate * job.H + block * job.lanes) * item
            store_units(job.zero, (to, sums + gate * V1, count))


@called
def lstm_options_gradients(job, work):  # type: ignore[no-untyped-def]
    """`weight_gradients`, and those of what only these layers have; of W_p the rows of this work's vectors of h."""
    weight_gradients(job, work)
    if job.peephole:
        peephole_gradients(job, work)
    if job.w_p:
        add_products(
            job, work, M, job.H, job.saved_dh, job.kept_row, V1, 0, 1, job.dw_p, job.dw_p_row, job.P, work.out_0, work.out_1
        )
