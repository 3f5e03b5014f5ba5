"""Back-propagation through time over a sequence: the rows of one direction, led by one thread. `cells/` has the steps.

The pass goes back over the steps, panel by panel. dh is the product of all gates' gradients of the step after with W_h
transposed; then the gates' gradients of the panel's units follow from what the forward pass saved. A panel is NR_BACK vectors
of units. The gates' gradients also go into an array over all (t, b), from which `weight_gradients.py` makes dW, db and dx.
"""

from ..codegen.descriptors import V1
from ..codegen.elementwise import add_units
from ..codegen.inline import called, inlined
from ..codegen.intrinsics import address_of, call_with, record
from ..products.gemm import NR_BACK, gemm
from .forward import (
    batch_row,
    first_block,
    last_block,
    leaves_off,
    load_rows,
    outputs_in,
    run_phase,
    steps_of,
    store_rows,
    time_of,
)

_LOOKS = 16  # steps between looks for a signal


@inlined
def blocks(job):
    """Gives the vectors that hold the units of a row."""
    return -(-job.H // job.lanes)


@called
def recurrent_product(job, share, rows, s, a, a_row, gates, w, out, panel, count):
    """Adds a W to `out` for `count` panels of units from `panel` on. It runs forth in one step and back in the next one,
    from the weights that are still in cache. Rows of `out` lie job.row bytes apart and are padded; `out` overlaps neither
    `a` nor W."""
    vectors, step = gates * blocks(job), NR_BACK * V1
    depth = vectors * job.lanes
    if job.recurrent_kernel:
        first, last = panel * NR_BACK, min((panel + count) * NR_BACK, blocks(job))
        words = share.slots, rows, a, a_row, vectors, w, first, (last - first) * job.lanes, out, job.row, s & 1
        call_with(job.recurrent_kernel, job.zero, words)
        return
    gemm(job, panel, panel + count, blocks(job), rows, a, a_row, w, depth, out, job.row, step, out, job.row, s & 1)


def backward(job, share):
    """Takes all rows of a share back through their sequences, by the job's `step_kernel` and, where a step has two phases, its
    `second_kernel`.

    `step_kernel` starts with the product of the step after, for the rows that had that step (`before`). So dh of some units is
    completed beside the gradients that are made from it, and threads wait for each other once instead of twice. At s = -1 it
    makes the last product alone.
    """
    addresses = address_of(job), address_of(share)
    job, share = record(job), record(share)
    for first in range(share.row_begin, share.row_end, share.row_cap):
        rows = min(share.row_cap, share.row_end - first)
        load_rows(job, first, rows, job.dh_n, job.h_b, job.P, job.dh, share.out_begin, share.out_end)
        if job.dc:
            for user, padded in ((job.dc_n, job.dc), (job.c_0, job.c_start)):
                load_rows(job, first, rows, user, job.c_b, job.H, padded, first_block(share), last_block(job, share))
        active, before = 0, 0
        for s in range(steps_of(job, first) - 1, -2, -1):
            if s % _LOOKS == 0 and leaves_off(share):
                break
            while s >= 0 and active < rows and steps_of(job, first + active) > s:
                active += 1
            run_phase(share, addresses, job.step_kernel, first, active, s, before, share.groups_1, share.cuts_1)
            if share.groups_2 and s >= 0:
                run_phase(share, addresses, job.second_kernel, first, active, s, before, share.groups_2, share.cuts_2)
            before = active
        store_rows(job, first, rows, job.dh, 0, job.dh_0, job.h_b, job.P, share.out_begin, share.out_end)
        if job.dc:
            store_rows(job, first, rows, job.dc, 0, job.dc_0, job.c_b, job.H, first_block(share), last_block(job, share))


@called
def add_output_gradient(job, first, rows, s, block_begin, block_end):
    """Adds dy of the rows at step s to vectors [block_begin, block_end) of dh."""
    for m in range(rows):
        row = first + m
        dy = job.dy + time_of(job, row, s) * job.dy_t + batch_row(job, row) * job.dy_b
        for block in range(block_begin, block_end):
            add_units(job.zero, (job.dh + row * job.row + block * V1, dy + block * V1, outputs_in(job, block)))
