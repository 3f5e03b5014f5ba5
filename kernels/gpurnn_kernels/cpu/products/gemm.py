"""The product with weights that are packed NR_BACK vectors to a panel: the backward pass and the projection use it."""

from ..codegen.descriptors import V1
from ..codegen.inline import called
from ..codegen.target import target
from .microkernel import multiply, multiply_in_turn

NR_BACK = 4 if target().registers == 32 else 2  # vectors in a panel of the backward products, and of the projection


@called
def gemm(job, panel_begin, panel_end, columns, rows, a, a_row, w, depth, init, init_row, init_step, out, out_row, descending):
    """Makes panels [panel_begin, panel_end) of out = init + a w, where w has `columns` vectors, packed NR_BACK to a panel; the
    last panel is narrower.

    `w`, `init` and `out` are the addresses of panel 0, and all strides are in bytes. `a` has `rows` rows, a_row apart, each of
    `depth` packets side by side. Panels of w are as the microkernel has them, without gaps. init_row and out_row
    lie between rows. init_step lies between one panel's `init` and the next one's: 0 where all panels start from the same.
    Panels of `out` lie side by side. `init` may be `out`; neither may overlap `a` or `w`. Whole vectors are written, so that
    rows of `out` are padded. descending: whole panels run from the last one to the first one.
    """
    whole = min(panel_end, columns // NR_BACK)
    size = NR_BACK * V1
    w_step = (depth + job.head) * size
    w_0, init_0, out_begin = w + panel_begin * w_step, init + panel_begin * init_step, out + panel_begin * size
    count = whole - panel_begin
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
        w += whole * w_step
        init += whole * init_step
        multiply(
            job, columns - whole * NR_BACK, rows, a, a_row, 1, w, 0, depth, init, init_row, 0, out + whole * size, out_row, 0
        )
