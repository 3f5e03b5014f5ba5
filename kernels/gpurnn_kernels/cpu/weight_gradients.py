"""dW_x, dW_h, db and dx: large products over all T * B rows at once, run after the recurrence.

    dW[unit, column] = sum over (t, b) of d_gates[t, b, unit] * source[t, b, column]      source: x, h_prev, r * h_prev
    dx[t, b] = d_gates[t, b] W_x

Threads share dW out by units and dx by rows; every sum runs over the rows in one order: the same bits for any number of
threads. Rows past a sequence's end have zero gates' gradients, and count as zeros whatever x holds there.
"""

from .backward import BACK, blocks, product
from .forward import V1, units_in
from .inline import called, inlined
from .memory import load_word, record
from .pointwise import add_vector, clear_vector, copy_units, copy_vector, store_units
from .target import target
from .tiles import multiply_transposed

DEPTH = 256  # rows of a packed source panel
WIDTH = 4 if target().registers == 32 else 3  # vectors in a panel: as many sums as there are registers, of rows of units
VECTORS = 8 * WIDTH  # that are packed at once, and stay in cache: the gates' gradients, strided, are read once for all of them
ROOM = (VECTORS + 1) * DEPTH  # vectors of scratch memory: those, and a column of the gates' gradients

X, H_PREV, FED, M = 0, 1, 2, 3  # sources


@inlined
def source_row(job, source, t, b):  # type: ignore[no-untyped-def]
    """The address of the source's row (t, b), of a user or padded; 0 where it does not count."""
    steps = load_word(job.batch_lengths + 8 * b) if job.batch_lengths else job.T
    if t >= steps:
        return 0
    if source == X:
        return job.x + t * job.x_t + b * job.x_b
    if source == FED:
        return job.fed + (t * job.B + b) * job.kept_row
    if source == M:
        return job.saved_m + (t * job.B + b) * job.kept_row
    before = t + 1 if job.reverse else t - 1
    if before < 0 or before >= steps:
        return job.h_0 + b * job.h_b
    return job.y + before * job.y_t + b * job.y_b


@called
def pack_source(job, packed, source, columns, start, depth, vector, width):  # type: ignore[no-untyped-def]
    """`depth` rows from row `start` on of `width` vectors of a source from `vector` on, side by side."""
    for k in range(depth):
        row = start + k
        t = row // job.B
        address = source_row(job, source, t, row - t * job.B)
        for u in range(width):
            to = packed + (k * width + u) * V1
            if address:
                copy_units(job.zero, (to, address + (vector + u) * V1, min(job.lanes, columns - (vector + u) * job.lanes)))
            else:
                clear_vector(job.zero, (to, to))


@called
def add_products(  # type: ignore[no-untyped-def]
    job, work, source, columns, d, d_row, d_block, first_gate, gates, dw, dw_row, size, block_0, block_1
):
    """The rows of dW (all gates * size, columns) that belong to `gates` gates of some blocks of units. d: their gradients in
    block 0, first gate; d_block: bytes from block to block."""
    vectors = -(-columns // job.lanes)
    column = work.slots + VECTORS * DEPTH * V1
    item = V1 // job.lanes
    for start in range(0, job.T * job.B, DEPTH):
        depth = min(DEPTH, job.T * job.B - start)
        for vector in range(0, vectors, VECTORS):
            count = min(VECTORS, vectors - vector)
            for v in range(0, count, WIDTH):
                pack_source(job, work.slots + v * DEPTH * V1, source, columns, start, depth, vector + v, min(WIDTH, count - v))
            for block in range(block_0, block_1):
                units = min(job.lanes, size - block * job.lanes)
                for gate in range(gates):
                    a, a_row = d + start * d_row + block * d_block + gate * V1, d_row
                    if count >= 2 * WIDTH:
                        pack_column(job, column, a, a_row, depth)
                        a, a_row = column, V1
                    out = dw + ((first_gate + gate) * size + block * job.lanes) * dw_row + vector * job.lanes * item
                    add_product(job, count, units, a, a_row, work.slots, depth, start > 0, out, dw_row)


@called
def pack_column(job, packed, source, stride, depth):  # type: ignore[no-untyped-def]
    """`depth` vectors that lie `stride` bytes apart, side by side, for products of several panels, which take them again and
    again: in an array of many rows each is on a page of its own."""
    zero = job.zero
    for k in range(depth):
        copy_vector(zero, (packed + k * V1, source + k * stride))


@inlined
def add_product(job, count, units, a, a_row, w, depth, more, out, dw_row):  # type: ignore[no-untyped-def]
    """out = a^T w, of `count` vectors, packed WIDTH to a panel; with `more`, added to what is there."""
    whole, left = count // WIDTH, count % WIDTH
    size = WIDTH * V1
    w_panel = DEPTH * size
    init, row, step = (out, dw_row, size) if more else (job.b, 0, 0)
    multiply_transposed(job, WIDTH, units, a, a_row, whole, w, w_panel, depth, init, row, step, out, dw_row, size)
    if left:
        init, out = init + whole * step, out + whole * size
        multiply_transposed(job, left, units, a, a_row, 1, w + whole * w_panel, 0, depth, init, row, 0, out, dw_row, 0)


@called
def sum_rows(job, work, d, d_row, d_block, gates, out):  # type: ignore[no-untyped-def]
    """out[gate * H + unit] = the sum of d over all rows, for this work's units."""
    item = V1 // job.lanes
    sums = work.slots
    vectors = (work.panel_1 - work.panel_0) * gates
    for v in range(vectors):
        clear_vector(job.zero, (sums + v * V1, sums))
    for row in range(job.T * job.B):
        a = d + row * d_row + work.panel_0 * d_block
        for v in range(vectors):
            add_vector(job.zero, (sums + v * V1, a + v * V1))
    for block in range(work.panel_0, work.panel_1):
        for gate in range(gates):
            source = sums + ((block - work.panel_0) * gates + gate) * V1
            to = out + (gate * job.H + block * job.lanes) * item
            store_units(job.zero, (to, source, units_in(job, block)))


@inlined
def weight_gradients(job, work):  # type: ignore[no-untyped-def]
    """dW_x, dW_h and the biases' gradients, of the units in panels (vectors of units) [panel_0, panel_1)."""
    split = job.dq != 0 or job.fed != 0  # W_hn's product differs from that of the other gates
    for term in range(3 if split else 2):
        source, columns, d, d_row, d_block = X, job.I, job.d_gates, job.d_row, job.gates * V1
        first_gate, gates, dw, dw_row = 0, job.gates, job.dw_x, job.dw_x_row
        if term > 0:
            source, columns, dw, dw_row = H_PREV, job.P, job.dw_h, job.dw_h_row
            if split:
                gates = 2
        if term == 2:
            first_gate, gates = 2, 1
            if job.dq:
                d, d_row, d_block = job.dq, job.kept_row, V1
            else:
                source, d = FED, job.d_gates + 2 * V1
        add_products(
            job, work, source, columns, d, d_row, d_block, first_gate, gates, dw, dw_row, job.H, work.panel_0, work.panel_1
        )
    if job.db:
        sum_rows(job, work, job.d_gates, job.d_row, job.gates * V1, job.gates, job.db)
    if job.db_hn:
        sum_rows(job, work, job.dq, job.kept_row, V1, 1, job.db_hn)


def all_weight_gradients(job, work):  # type: ignore[no-untyped-def]
    weight_gradients(record(job), record(work))


def input_gradients(job, work):  # type: ignore[no-untyped-def]
    """dx of the (t, b) rows [row_0, row_1), row_cap at a time."""
    job, work = record(job), record(work)
    columns = -(-job.I // job.lanes)
    whole = job.I // (BACK * job.lanes)
    item = V1 // job.lanes
    depth = job.gates * blocks(job) * job.lanes
    for first in range(work.row_0, work.row_1, work.row_cap):
        rows = min(work.row_cap, work.row_1 - first)
        a = job.d_gates + first * job.d_row
        dx, dx_row = job.dx + first * job.I * item, job.I * item
        product(job, 0, whole, columns, rows, a, job.d_row, job.w_x, depth, job.b, 0, 0, dx, dx_row, 0)
        if whole * BACK < columns:
            # a panel that ends past a row of dx goes through scratch memory
            out = work.slots - whole * BACK * V1
            product(job, whole, whole + 1, columns, rows, a, job.d_row, job.w_x, depth, job.b, 0, 0, out, BACK * V1, 0)
            for m in range(rows):
                for block in range(whole * BACK, columns):
                    source = work.slots + (m * BACK + block - whole * BACK) * V1
                    to = dx + m * dx_row + block * V1
                    store_units(job.zero, (to, source, min(job.lanes, job.I - block * job.lanes)))
