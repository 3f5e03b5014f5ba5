"""The steps of LSTM layers with peepholes, a clip or a projection, in any combination, forward and backward.

The loops around them are those of forward.py, backward.py and weight_gradients.py. A projected layer has h = W_p m with
m = o * tanh(c): one product and one meeting of threads more in each step. Panels of that product are NR_BACK vectors of h.
"""

from ..codegen.inline import called, inlined
from ..codegen.intrinsics import load_word, record
from ..passes.backward import NR_BACK, add_output_gradient, blocks, product
from ..passes.forward import V1, V3, V4, address_rows, next_group, outputs_in, saved_row, units_in
from ..passes.weight_gradients import projection_gradients, weight_gradients
from .backward import blocks_of_rows, lstm_place, lstm_plane
from .common import cells, is_descending, next_panel, panels_here, row_at, slot_at
from .lstm import lstm_begin, lstm_gates
from .pointwise import clear_vector, copy_vector, store_units
from .pointwise_options import (
    add_product,
    copy_gates,
    lstm_options_unit,
    lstm_options_unit_grad,
    lstm_peephole_unit,
    lstm_peephole_unit_grad,
)


@inlined
def output_blocks(job):
    """Vectors that hold a row of h."""
    return -(-job.P // job.lanes)


@called
def output_product(job, panel, count, first, rows, s, a, a_row):
    """dh += a W_h, for `count` panels of h from row `first` on: in one step forth, in the next one back."""
    columns, step, depth, dh = output_blocks(job), NR_BACK * V1, 4 * blocks(job) * job.lanes, job.dh + first * job.row
    product(job, panel, panel + count, columns, rows, a, a_row, job.w_h, depth, dh, job.row, step, dh, job.row, s & 1)


@called
def project_m(job, first, last, rows, m, h_out):
    """h = W_p m, for some panels of h."""
    product(job, first, last, output_blocks(job), rows, m, job.row, job.w_p, job.H, job.zeros, 0, 0, h_out, job.row, 0)


@inlined
def options_place(job, share, first, s, slot, block, m):
    """What `lstm_options_unit` takes for row m of a block of units."""
    unit = (first + m) * job.row + block * V1
    out = share.m if job.w_p else share.h + (~s & 1) * share.h_plane
    return slot_at(share, block, slot + m), share.c + unit, out + unit, job.limit


@inlined
def peephole_place(job, share, first, s, slot, block, m):
    """What `lstm_peephole_unit` takes for row m of a block of units."""
    return *options_place(job, share, first, s, slot, block, m), job.peephole + block * V3


@inlined
def save_unit(job, share, first, s, slot, block, m):
    """Keeps what the backward pass reads of row m of a block of units."""
    at, c, out, _ = options_place(job, share, first, s, slot, block, m)
    kept = saved_row(job, first + m, s)
    copy_gates(job.zero, (job.saved + kept * job.saved_row + block * V4, at))
    kept = kept * job.unit_row + block * V1
    copy_vector(job.zero, (job.saved_c + kept, c))
    if job.w_p:
        copy_vector(job.zero, (job.saved_m + kept, out))


def lstm_options_step(job, share, first, rows, s, slot):
    job, share = record(job), record(share)
    address_rows(job, share, first, rows, s)
    h = share.h + (s & 1) * share.h_plane + first * job.row
    h_out = share.h + (~s & 1) * share.h_plane + first * job.row
    descending = is_descending(share, s)
    panel = next_panel(share, descending)
    while panel >= 0:
        count = panels_here(share, panel)
        if share.fused:
            lstm_begin(job, share, share.x, share.x_row, rows, panel, count, descending)
        lstm_gates(job, share, rows, h, descending, slot, panel, count)
        if job.peephole:
            cells(lstm_peephole_unit, peephole_place, job, share, first, rows, s, slot, panel, count)
        else:
            cells(lstm_options_unit, options_place, job, share, first, rows, s, slot, panel, count)
        if job.saved:
            for block in range(panel, panel + count):
                for m in range(rows):
                    save_unit(job, share, first, s, slot, block, m)
        if not job.w_p:
            store_outputs(job, share, rows, h_out, panel, panel + count)
        panel = next_panel(share, descending)


@called
def store_outputs(job, share, rows, h_out, block_begin, block_end):
    for m in range(rows):
        y = load_word(row_at(share, m))
        for block in range(block_begin, block_end):
            store_units(job.zero, (y + block * V1, h_out + m * job.row + block * V1, outputs_in(job, block)))


def lstm_options_second(job, share, first, rows, s, slot):
    """h = W_p m of a projected layer."""
    job, share = record(job), record(share)
    address_rows(job, share, first, rows, s)
    h_out = share.h + (~s & 1) * share.h_plane + first * job.row
    panel = next_group(share, 0)
    while panel >= 0:
        project_m(job, panel, panel + 1, rows, share.m + first * job.row, h_out)
        store_outputs(job, share, rows, h_out, panel * NR_BACK, min(panel * NR_BACK + NR_BACK, output_blocks(job)))
        panel = next_group(share, 0)


@called
def take_dh(job, first, rows, s, block_begin, block_end):
    """Hands vectors [block_begin, block_end) of dh to the product with W_p and to dW_p; dh becomes the start of the sum for
    dh_prev."""
    for m in range(rows):
        row = first + m
        kept = saved_row(job, row, s) * job.unit_row
        for block in range(block_begin, block_end):
            dh = job.dh + row * job.row + block * V1
            copy_vector(job.zero, (job.dh_step + row * job.row + block * V1, dh))
            copy_vector(job.zero, (job.saved_dh + kept + block * V1, dh))
            clear_vector(job.zero, (dh, dh))


@called
def m_gradients(job, first, rows, panel, count):
    """dm = dh W_p, for `count` panels of units."""
    dh, dm = job.dh_step + first * job.row, job.dm + first * job.row
    depth, last = output_blocks(job) * job.lanes, panel + count
    product(job, panel, last, blocks(job), rows, dh, job.row, job.w_p, depth, job.zeros, 0, 0, dm, job.row, 0)


@inlined
def grad_place(job, row, s, plane, block):
    """What `lstm_options_unit_grad` takes."""
    saved, before, c, dh, dc, step, gates = lstm_place(job, row, s, plane, block)
    if job.w_p:
        dh = job.dm + row * job.row + block * V1
    return saved, before, c, dh, dc, step, gates, job.limit


@inlined
def peephole_grad_place(job, row, s, plane, block):
    """What `lstm_peephole_unit_grad` takes."""
    return *grad_place(job, row, s, plane, block), job.peephole + block * V3


@inlined
def complete_dh(job, first, rows, s, before, panel, count):
    """Adds to dh of `count` panels of h what the step after s hands back, and dy of step s."""
    if before > 0:
        after, after_row = lstm_plane(job, first, s + 1)
        output_product(job, panel, count, first, before, s + 1, after, after_row)
    if job.dy and s >= 0:
        add_output_gradient(job, first, rows, s, panel * NR_BACK, min((panel + count) * NR_BACK, output_blocks(job)))


@inlined
def option_cells(job, share, first, rows, s, panel, count):
    plane, plane_row = lstm_plane(job, first, s)
    if job.peephole:
        unit, place = lstm_peephole_unit_grad, peephole_grad_place
        blocks_of_rows(unit, place, job, share, first, rows, s, plane, plane_row, panel, count)
    else:
        blocks_of_rows(lstm_options_unit_grad, grad_place, job, share, first, rows, s, plane, plane_row, panel, count)


def lstm_options_step_back(job, share, first, rows, s, before):
    """All of a step or, of a projected layer, what makes dh complete; panels are of h, then."""
    job, share = record(job), record(share)
    panel = next_group(share, s & 1) if job.w_p else next_panel(share, s & 1)
    while panel >= 0:
        count = 1 if job.w_p else panels_here(share, panel)
        complete_dh(job, first, rows, s, before, panel, count)
        if s >= 0:
            if job.w_p:
                take_dh(job, first, rows, s, panel * NR_BACK, min((panel + count) * NR_BACK, output_blocks(job)))
            else:
                option_cells(job, share, first, rows, s, panel, count)
        panel = next_group(share, s & 1) if job.w_p else next_panel(share, s & 1)


def lstm_options_second_back(job, share, first, rows, s, before):
    """The gates' gradients of a projected layer."""
    job, share = record(job), record(share)
    panel = next_panel(share, s & 1)
    while panel >= 0:
        count = panels_here(share, panel)
        m_gradients(job, first, rows, panel, count)
        option_cells(job, share, first, rows, s, panel, count)
        panel = next_panel(share, s & 1)


@inlined
def c_before(job, t, b, steps):
    """The address of the c that the step at time t started from, a user's row or padded."""
    before = t + 1 if job.reverse else t - 1
    if before < 0 or before >= steps:
        return job.c_0 + b * job.c_b
    return job.saved_c + (before * job.B + b) * job.unit_row


@called
def peephole_gradients(job, share):
    """p_f and p_i saw the c before a step, p_o the c after it."""
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
                    d = job.d_gates + kept * job.d_row + block * V4
                    before = c_before(job, t, b, steps) + block * V1
                    after = job.saved_c + kept * job.unit_row + block * V1
                    add_product(job.zero, (sums, d, before, count))
                    add_product(job.zero, (sums + V1, d + V1, before, count))
                    add_product(job.zero, (sums + 2 * V1, d + 2 * V1, after, count))
        for gate in range(3):
            to = job.d_peephole + (gate * job.H + block * job.lanes) * item
            store_units(job.zero, (to, sums + gate * V1, count))


@inlined
def option_gradients(job, share):
    """Of what only these layers have; of W_p the rows of this share's vectors of h."""
    if job.peephole:
        peephole_gradients(job, share)
    if job.w_p:
        projection_gradients(job, share)


def lstm_options_gradients(job, share):
    job, share = record(job), record(share)
    weight_gradients(job, share)
    option_gradients(job, share)
