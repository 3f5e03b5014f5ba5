"""A product with weights that are packed NR_BACK vectors to a panel: of the backward pass, and of the projection."""

from ..codegen.descriptors import V1
from ..codegen.inline import called
from ..codegen.target import target
from .microkernel import multiply, multiply_in_turn

NR_BACK = 4 if target().registers == 32 else 2  # vectors in a panel of the backward products, and of the projection


@called
def gemm(job, panel_begin, panel_end, columns, rows, a, a_row, w, depth, init, init_row, init_step, out, out_row, descending):
    """Makes panels [panel_begin, panel_end) of a product whose `columns` vectors are packed NR_BACK to a panel, the last one
    narrower. `w`, `init`, `out`: addresses of panel 0; init_step: bytes from one panel's `init` to the next one's, 0 where all
    start from the same; `descending`: from the last whole panel to the first one."""
    whole = min(panel_end, columns // NR_BACK)
    size = NR_BACK * V1
    w_0, init_0, out_begin = w + panel_begin * depth * size, init + panel_begin * init_step, out + panel_begin * size
    count, w_step = whole - panel_begin, depth * size
    multiply_in_turn(
        job,
        NR_BACK,
        rows,
        a,
        a_row,
        count,
        w_0,
        w_step,
        depth,
        init_0,
        init_row,
        init_step,
        out_begin,
        out_row,
        size,
        descending,
    )
    if whole < panel_end:
        w += whole * depth * size
        init += whole * init_step
        multiply(
            job, columns - whole * NR_BACK, rows, a, a_row, 1, w, 0, depth, init, init_row, 0, out + whole * size, out_row, 0
        )
