"""The gradients dW_x, dW_h, db and dx: large products over all T * B rows at once, run after the recurrence.

    dW[unit, column] = sum over (t, b) of d_gates[t, b, unit] * source[t, b, column]      source: x, h_prev, r * h_prev
    dx[t, b] = d_gates[t, b] W_x

Threads share dW out by units and dx by rows. Every sum runs over the rows in one order: the same bits for any number of
threads. Rows past a sequence's end have zero gates' gradients, and count as zeros whatever x holds there.
"""

from ..codegen.descriptors import V1
from ..codegen.elementwise import ROWS_AT_ONCE, clear_vector, copy_and_add, copy_and_add_rows, copy_units, store_units
from ..codegen.inline import called, inlined
from ..codegen.intrinsics import load_word, record
from ..codegen.target import target
from ..products.gemm import NR_BACK, gemm
from ..products.microkernel import multiply_transposed
from .backward import blocks
from .forward import leaves_off, units_in

DEPTH = 256  # rows of a packed source panel
WIDTH = 4 if target().registers == 32 else 3  # vectors in a panel: as many sums as there are registers, of rows of units
PANELS = 8  # that are packed at once, and stay in cache: the gates' gradients, strided, are read once for all of them
SIZE = WIDTH * V1  # bytes of a row of a panel
MOST_SUMS = 4  # gradients of a unit that W_x or W_h saw, and that are packed: the gates', and dq
# vectors of scratch memory: panels; then the gates' gradients of a vector of units; then sums
COLUMNS = PANELS * WIDTH * DEPTH
SUMS = COLUMNS + MOST_SUMS * DEPTH

X, H_PREV, FED, M = 0, 1, 2, 3  # sources


def scratch(units: int) -> int:
    """Gives the vectors of scratch memory for the weight gradients of `units` vectors of units."""
    return SUMS + (units + 1) * MOST_SUMS


@inlined
def source_row(job, source, t, b):
    """Gives the address of the source's row (t, b), a user's or a padded one; 0 where the row does not count."""
    steps = load_word(job.batch_lengths + 8 * b) if job.batch_lengths else job.T
    if t >= steps:
        return 0
    if source == X:
        return job.x + t * job.x_t + b * job.x_b
    if source == FED:
        return job.fed + (t * job.B + b) * job.unit_row
    if source == M:
        return job.saved_m + (t * job.B + b) * job.unit_row
    before = t + 1 if job.reverse else t - 1
    if before < 0 or before >= steps:
        return job.h_0 + b * job.h_b
    return job.y + before * job.y_t + b * job.y_b


@called
def pack_source(job, packed, source, columns, start, depth, vector, width):
    """Packs `depth` rows from row `start` on of `width` vectors of a source, from `vector` on, side by side at `packed`."""
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


@inlined
def panels_of(job, columns):
    return -(-columns // (WIDTH * job.lanes))


@inlined
def pack_panels(job, share, source, columns, start, depth, first, last, origin):
    """Packs a source's panels among [first, last) into scratch memory, `depth` rows from row `start` on. Panels of all
    sources are counted together; this source's begin at `origin`."""
    vectors = -(-columns // job.lanes)
    for panel in range(max(first, origin), min(last, origin + panels_of(job, columns))):
        vector = (panel - origin) * WIDTH
        packed = share.slots + (panel - first) * DEPTH * SIZE
        pack_source(job, packed, source, columns, start, depth, vector, min(WIDTH, vectors - vector))


@called
def pack_columns(job, column, sums, d, d_row, depth, gates):
    """Packs `depth` rows of the gradients of some gates of a vector of units, d_row bytes apart, each gate's side by side
    at `column`, and adds them to `sums`. Products of several panels read them again and again, and in an array of many rows
    each row is on a page of its own."""
    zero = job.zero
    k = 0
    while k < depth:
        more = k + ROWS_AT_ONCE <= depth
        for gate in range(gates):
            words = column + (gate * DEPTH + k) * V1, d + k * d_row + gate * V1, d_row, sums + gate * V1
            if more:
                copy_and_add_rows(zero, words)
            else:
                copy_and_add(zero, words)
        k += ROWS_AT_ONCE if more else 1


@called
def add_product(job, share, first, last, origin, columns, column, units, start, depth, out, dw_row):
    """Adds column^T times a source's packed panels to out (units, columns), dw_row bytes a row. From start 0 it sets `out`,
    later it adds. Rows of `out` are padded to whole vectors."""
    begin, end = max(first, origin) - origin, min(last - origin, panels_of(job, columns))
    if begin >= end:
        return
    vectors = -(-columns // job.lanes)
    whole = min(end, vectors // WIDTH) - begin
    w, w_panel, out = share.slots + (origin + begin - first) * DEPTH * SIZE, DEPTH * SIZE, out + begin * SIZE
    init, row, step = (out, dw_row, SIZE) if start > 0 else (job.b, 0, 0)
    multiply_transposed(job, WIDTH, units, column, V1, whole, w, w_panel, depth, init, row, step, out, dw_row, SIZE)
    if begin + whole < end:
        w, init, out = w + whole * w_panel, init + whole * step, out + whole * SIZE
        multiply_transposed(job, vectors % WIDTH, units, column, V1, 1, w, 0, depth, init, row, 0, out, dw_row, 0)


@inlined
def sums_of(job, share, block):
    """Gives the address where the biases' gradients of a vector of units add up. For panel_end it gives scratch that nobody
    reads."""
    return share.slots + (SUMS + (block - share.panel_begin) * MOST_SUMS) * V1


@inlined
def gradients_of(job, gate):
    """Gives the index of the gradients that a gate's rows of W_h saw: the gate itself, or `dq`, which is packed after all
    gates."""
    return load_word(job.recurrent + 16 * gate)


@inlined
def source_of(job, gate):
    """Gives the source that a gate's rows of W_h were multiplied by: H_PREV or FED."""
    return load_word(job.recurrent + 16 * gate + 8)


@called
def add_products(job, share, start, depth, first, last):
    """Adds `depth` rows from row `start` on to the columns of dW in panels [first, last): x's panels come before h's. The
    turn of panel 0 also adds up the biases' gradients."""
    h_at = panels_of(job, job.I)
    fed_at = h_at + panels_of(job, job.P)
    pack_panels(job, share, X, job.I, start, depth, first, last, 0)
    pack_panels(job, share, H_PREV, job.P, start, depth, first, last, h_at)
    if job.fed:
        pack_panels(job, share, FED, job.P, start, depth, first, last, fed_at)
    columns, gates = share.slots + COLUMNS * V1, job.gates
    for block in range(share.panel_begin, share.panel_end):
        units = units_in(job, block)
        sums = sums_of(job, share, block if first == 0 else share.panel_end)
        pack_columns(job, columns, sums, job.d_gates + start * job.d_row + block * gates * V1, job.d_row, depth, gates)
        if job.dq and (first == 0 or last > h_at):
            dq = job.dq + start * job.unit_row + block * V1
            pack_columns(job, columns + gates * DEPTH * V1, sums + gates * V1, dq, job.unit_row, depth, 1)
        for gate in range(gates):
            row = gate * job.H + block * job.lanes
            a, dw = columns + gate * DEPTH * V1, job.dw_x + row * job.dw_x_row
            add_product(job, share, first, last, 0, job.I, a, units, start, depth, dw, job.dw_x_row)
            a, dw = columns + gradients_of(job, gate) * DEPTH * V1, job.dw_h + row * job.dw_h_row
            origin = fed_at if source_of(job, gate) == FED else h_at
            add_product(job, share, first, last, origin, job.P, a, units, start, depth, dw, job.dw_h_row)


@inlined
def weight_gradients(job, share):
    """Makes dW_x, dW_h and the biases' gradients for the units in panels (vectors of units) [panel_begin, panel_end)."""
    for v in range((share.panel_end - share.panel_begin) * MOST_SUMS):
        sums = sums_of(job, share, share.panel_begin)
        clear_vector(job.zero, (sums + v * V1, sums))
    panels = panels_of(job, job.I) + panels_of(job, job.P) * (2 if job.fed else 1)
    for start in range(0, job.T * job.B, DEPTH):
        if leaves_off(share):
            break
        for first in range(0, panels, PANELS):
            add_products(job, share, start, min(DEPTH, job.T * job.B - start), first, min(first + PANELS, panels))
    store_sums(job, share, sums_of(job, share, share.panel_begin))


@called
def store_sums(job, share, sums):
    """Stores the biases' gradients from `sums`, which holds MOST_SUMS vectors a vector of units."""
    item = V1 // job.lanes
    for block in range(share.panel_begin, share.panel_end):
        units, unit = units_in(job, block), block * job.lanes
        for gate in range(job.gates):
            store_units(job.zero, (job.db + (gate * job.H + unit) * item, sums + gate * V1, units))
        if job.db_hn:
            store_units(job.zero, (job.db_hn + unit * item, sums + job.gates * V1, units))
        sums += MOST_SUMS * V1


def all_weight_gradients(job, share):
    weight_gradients(record(job), record(share))


def input_gradients(job, share):
    """Makes dx of the (t, b) rows [row_begin, row_end), row_cap at a time."""
    job, share = record(job), record(share)
    columns = -(-job.I // job.lanes)
    whole = job.I // (NR_BACK * job.lanes)
    item = V1 // job.lanes
    depth = job.gates * blocks(job) * job.lanes
    for first in range(share.row_begin, share.row_end, share.row_cap):
        if leaves_off(share):
            break
        rows = min(share.row_cap, share.row_end - first)
        a = job.d_gates + first * job.d_row
        dx, dx_row = job.dx + first * job.I * item, job.I * item
        gemm(job, 0, whole, columns, rows, a, job.d_row, job.w_x, depth, job.b, 0, 0, dx, dx_row, 0)
        if whole * NR_BACK < columns:
            # a panel that ends past a row of dx goes through scratch memory
            out = share.slots - whole * NR_BACK * V1
            gemm(job, whole, whole + 1, columns, rows, a, job.d_row, job.w_x, depth, job.b, 0, 0, out, NR_BACK * V1, 0)
            for m in range(rows):
                for block in range(whole * NR_BACK, columns):
                    source = share.slots + (m * NR_BACK + block - whole * NR_BACK) * V1
                    to = dx + m * dx_row + block * V1
                    store_units(job.zero, (to, source, min(job.lanes, job.I - block * job.lanes)))
