"""The second phase of a step of a projected layer: h = W_p m with m = o * tanh(c), and its gradients.

Panels of that product are NR_BACK vectors of h.
"""

from typing import Any

from ..codegen.descriptors import ROW_ENTRY, V1
from ..codegen.elementwise import clear_vector, copy_vector, store_units
from ..codegen.inline import called, inlined, named
from ..codegen.intrinsics import load_word, record
from ..passes.backward import add_output_gradient, blocks
from ..passes.forward import address_rows, next_group, outputs_in, saved_row
from ..products.gemm import NR_BACK, gemm
from ..products.product import as_read
from .step import next_panel, over_blocks, panels_here, plane_of_all


@inlined
def output_blocks(job):
    """Gives the vectors that hold a row of h."""
    return -(-job.P // job.lanes)


@inlined
def last_output(job, panel, count):
    """Gives the end of the vectors of h in `count` panels."""
    return min((panel + count) * NR_BACK, output_blocks(job))


@called
def store_outputs(job, share, rows, h_next, block_begin, block_end):
    """Stores vectors of h as y."""
    for m in range(rows):
        y = load_word(share.row_table + m * ROW_ENTRY)
        for block in range(block_begin, block_end):
            store_units(job.zero, (y + block * V1, h_next + m * job.row + block * V1, outputs_in(job, block)))


def make_projected_step(name: str) -> Any:
    """Makes the kernel of the second phase: h = W_p m."""

    def second(job, share, first, rows, s, slot):
        job, share = record(job), record(share)
        address_rows(job, share, first, rows, s)
        m, m_row = as_read(job, share, share.m + first * job.row, rows, job.H)
        h_next = share.h + (~s & 1) * share.h_plane + first * job.row
        panel, columns = next_group(share, 0), output_blocks(job)
        while panel >= 0:
            gemm(job, panel, panel + 1, columns, rows, m, m_row, job.w_p, job.m_depth, job.zeros, 0, 0, h_next, job.row, 0)
            store_outputs(job, share, rows, h_next, panel * NR_BACK, last_output(job, panel, 1))
            panel = next_group(share, 0)

    return named(name, second)


@called
def complete_dh(job, first, rows, s, before, panel):
    """Adds to dh of a panel of h the product of the gates' gradients of step s + 1 with W_h, and dy of step s."""
    if before > 0:
        (after, after_row), step, dh = plane_of_all(job, first, s + 1), NR_BACK * V1, job.dh + first * job.row
        depth, columns, descending = 4 * blocks(job) * job.lanes, output_blocks(job), (s + 1) & 1
        gemm(
            job,
            panel,
            panel + 1,
            columns,
            before,
            after,
            after_row,
            job.w_h,
            depth,
            dh,
            job.row,
            step,
            dh,
            job.row,
            descending,
        )
    if job.dy and s >= 0:
        add_output_gradient(job, first, rows, s, panel * NR_BACK, last_output(job, panel, 1))


@called
def hand_on_dh(job, first, rows, s, block_begin, block_end):
    """Copies vectors [block_begin, block_end) of dh for the product with W_p and for dW_p, then clears them: the sum for
    dh_prev starts there."""
    for row in range(first, first + rows):
        saved = saved_row(job, row, s) * job.unit_row
        for block in range(block_begin, block_end):
            dh = job.dh + row * job.row + block * V1
            copy_vector(job.zero, (job.dh_step + row * job.row + block * V1, dh))
            copy_vector(job.zero, (job.saved_dh + saved + block * V1, dh))
            clear_vector(job.zero, (dh, dh))


@called
def m_gradients(job, first, rows, panel, count):
    """Makes dm = dh W_p for `count` panels of units."""
    dh, dm = job.dh_step + first * job.row, job.dm + first * job.row
    depth, last = output_blocks(job) * job.lanes, panel + count
    gemm(job, panel, last, blocks(job), rows, dh, job.row, job.w_p, depth, job.zeros, 0, 0, dm, job.row, 0)


def make_projected_step_back(name: str, form: Any) -> tuple[Any, Any]:
    """Makes the kernels of a step's two phases back: over panels of h, then over panels of units."""
    cells = over_blocks(form)

    def step_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        panel = next_group(share, s & 1)
        while panel >= 0:
            complete_dh(job, first, rows, s, before, panel)  # 1. dh
            if s >= 0:
                hand_on_dh(job, first, rows, s, panel * NR_BACK, last_output(job, panel, 1))
            panel = next_group(share, s & 1)

    def second_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        plane, plane_row = plane_of_all(job, first, s)
        panel = next_panel(share, s & 1)
        while panel >= 0:
            count = panels_here(share, panel)
            m_gradients(job, first, rows, panel, count)  # 2. dm
            cells(job, share, first, rows, s, plane, plane_row, panel, count)  # 3. the gates' gradients
            panel = next_panel(share, s & 1)

    return named(name, step_back), named(f"{name}_second", second_back)
