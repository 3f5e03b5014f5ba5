"""Back-propagation through time over a sequence: the rows of one direction, led by one thread. `steps/back.py` has the cells.

Backwards over the steps, panel by panel: dh as the product of all gates' gradients of the step after with W_h transposed, then
the gates' gradients of the panel's units, from what the forward pass kept. A panel is BACK vectors of units. The gates'
gradients also go into an array over all (t, b), from which `weight_gradients.py` makes dW, db and dx.
"""

from ..cells.pointwise import add_units
from ..codegen.inline import called, inlined
from ..codegen.intrinsics import address_of, call_with, record
from ..codegen.target import target
from ..products.microkernel import multiply, multiply_in_turn
from .forward import (
    V1,
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
BACK = 4 if target().registers == 32 else 2  # vectors in a panel of the backward products, and of the projection


@inlined
def blocks(job):  # type: ignore[no-untyped-def]
    """Vectors that hold the units of a row."""
    return -(-job.H // job.lanes)


@called
def product(  # type: ignore[no-untyped-def]
    job, panel_0, panel_1, columns, rows, a, a_row, w, depth, init, init_row, init_step, out, out_row, back
):
    """Panels [panel_0, panel_1) of a product whose `columns` vectors are packed BACK to a panel, the last one narrower. `w`,
    `init`, `out`: of panel 0; init_step: bytes from one panel's `init` to the next one's, 0 where all start from the same;
    `back`: from the last whole panel to the first one."""
    whole = min(panel_1, columns // BACK)
    size = BACK * V1
    w_0, init_0, out_0 = w + panel_0 * depth * size, init + panel_0 * init_step, out + panel_0 * size
    count, w_step = whole - panel_0, depth * size
    multiply_in_turn(
        job, BACK, rows, a, a_row, count, w_0, w_step, depth, init_0, init_row, init_step, out_0, out_row, size, back
    )
    if whole < panel_1:
        w += whole * depth * size
        init += whole * init_step
        multiply(
            job, columns - whole * BACK, rows, a, a_row, 1, w, 0, depth, init, init_row, 0, out + whole * size, out_row, 0
        )


@called
def recurrent_product(job, work, rows, s, a, a_row, gates, w, out, panel, count):  # type: ignore[no-untyped-def]
    """out += a W, of `count` panels of units: in one step forth, in the next one back, from what is still in cache."""
    vectors, step = gates * blocks(job), BACK * V1
    depth = vectors * job.lanes
    if job.recurrent_kernel:
        first, last = panel * BACK, min((panel + count) * BACK, blocks(job))
        words = work.slots, rows, a, a_row, vectors, w, first, (last - first) * job.lanes, out, job.row, s & 1
        call_with(job.recurrent_kernel, job.zero, words)
        return
    product(job, panel, panel + count, blocks(job), rows, a, a_row, w, depth, out, job.row, step, out, job.row, s & 1)


def backward(job, work):  # type: ignore[no-untyped-def]
    """All rows of a work back through their sequences, by the job's `step_kernel` and, where a step has two phases, its
    `second_kernel`.

    `step_kernel` starts with the product of the step after, for the rows that had it (`before`): what makes dh of some units
    complete stands beside what is made from it, and threads wait for each other once instead of twice. At s = -1 it is the
    last step's product alone.
    """
    addresses = address_of(job), address_of(work)
    job, work = record(job), record(work)
    for first in range(work.row_0, work.row_1, work.row_cap):
        rows = min(work.row_cap, work.row_1 - first)
        load_rows(job, first, rows, job.dh_n, job.h_b, job.P, job.dh, work.out_0, work.out_1)
        if job.dc:
            for user, padded in ((job.dc_n, job.dc), (job.c_0, job.c)):
                load_rows(job, first, rows, user, job.c_b, job.H, padded, first_block(work), last_block(job, work))
        active, before = 0, 0
        for s in range(steps_of(job, first) - 1, -2, -1):
            if s % _LOOKS == 0 and leaves_off(work):
                break
            while s >= 0 and active < rows and steps_of(job, first + active) > s:
                active += 1
            run_phase(work, addresses, job.step_kernel, first, active, s, before, work.groups_1, work.cuts_1)
            if work.groups_2 and s >= 0:
                run_phase(work, addresses, job.second_kernel, first, active, s, before, work.groups_2, work.cuts_2)
            before = active
        store_rows(job, first, rows, job.dh, 0, job.dh_0, job.h_b, job.P, work.out_0, work.out_1)
        if job.dc:
            store_rows(job, first, rows, job.dc, 0, job.dc_0, job.c_b, job.H, first_block(work), last_block(job, work))


@called
def add_output_gradient(job, first, rows, s, block_0, block_1):  # type: ignore[no-untyped-def]
    """Adds dy of the rows at step s to vectors [block_0, block_1) of dh."""
    for m in range(rows):
        row = first + m
        dy = job.dy + time_of(job, row, s) * job.dy_t + batch_row(job, row) * job.dy_b
        for block in range(block_0, block_1):
            add_units(job.zero, (job.dh + row * job.row + block * V1, dy + block * V1, outputs_in(job, block)))
