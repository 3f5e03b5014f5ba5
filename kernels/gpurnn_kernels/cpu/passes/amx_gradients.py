"""The large products of the backward pass on AMX tiles: dW, db, dx and dh_prev. They take the place of `weight_gradients.py`
and of `recurrent_product` in `backward.py`.

For dW, A is the gates' gradients, turned so that k are the rows (t, b), and B is the sources. For dx and dh_prev, A is rows of
the gates' gradients as they stand, and B is the weights, as `pack_strips` has packed them. Addresses and strides are in bytes.
"""

from ..codegen.descriptors import V1
from ..codegen.elementwise import clear_vector
from ..codegen.inline import called, inlined
from ..codegen.intrinsics import load_word, record, store_word
from ..products.amx.instructions import BLOCK, ROW, tiles_off, tiles_on
from ..products.amx.strips import (
    DEPTH,
    LANES,
    PAIRS,
    SUMS_BYTES,
    blocks_of,
    multiply_rows,
    multiply_strips,
    split_columns,
    split_pair,
    strips_of,
)
from .backward import blocks as vectors_of
from .forward import leaves_off
from .weight_gradients import MOST_SUMS, X, gradients_of, source_of, source_row, store_sums

ROWS_DEEP = 512  # rows (t, b) that are split at once
STRIP = ROWS_DEEP // DEPTH * BLOCK
UNITS = 4  # vectors of units whose gates are split at once: they stay in L2
_WIDTH = 2  # strips of a source that are split at once
_GATES = 4
# where the scratch memory has a source's strips, addresses of the sources' rows, and the gates' strips, those of a vector of
# units side by side; then come the biases' gradients
_B = SUMS_BYTES
_ROWS = _B + _WIDTH * STRIP
_A = _ROWS + 3 * 8 * ROWS_DEEP
_UNIT = _GATES * STRIP


def gradients_room(units: int) -> int:
    """Gives the bytes of scratch memory for the weight gradients of `units` vectors of units."""
    return _A + min(UNITS, units) * _UNIT + units * MOST_SUMS * V1


@called
def find_rows(job, rows, source, start, depth):
    """Writes the addresses of a source's rows from row `start` on to the table `rows`: 0 past `depth`, and for rows that do
    not count."""
    t = start // job.B
    b = start - t * job.B
    for k in range(0, depth):
        store_word(rows + 8 * k, source_row(job, source, t, b))
        b += 1
        if b == job.B:
            t, b = t + 1, 0
    for k in range(depth, -(-depth // DEPTH) * DEPTH):
        store_word(rows + 8 * k, 0)


@called
def split_source(zero, to, rows, depth, columns, first, strips):
    """Splits `depth` rows of a source, by their addresses in the table `rows`, into `strips` strips at `to`, from strip
    `first` on."""
    for k in range(0, depth, DEPTH):
        for pair in range(k, k + PAIRS):
            one, other = load_word(rows + 8 * pair), load_word(rows + 8 * (pair + PAIRS))
            for strip in range(strips):
                at, remaining = (first + strip) * V1, columns - (first + strip) * LANES
                place = to + strip * STRIP + k // DEPTH * BLOCK + (pair - k) * ROW
                split_pair(zero, (place, one + at, remaining if one else 0, other + at, remaining if other else 0))


@called
def split_gates(job, strips, d, d_row, depth, totals, vectors, gates):
    """Splits `depth` rows of the gradients of some gates of `vectors` vectors of units into strips, and adds the rows to
    `totals`. A row of the gradients is far from the next one, so all that is needed of it is read at once."""
    for k in range(0, depth, DEPTH):
        for vector in range(vectors):
            for gate in range(gates):
                to = strips + vector * _UNIT + gate * STRIP + k // DEPTH * BLOCK
                at = d + k * d_row + (vector * gates + gate) * V1
                total = totals + (vector * MOST_SUMS + gate) * V1
                split_columns(job.zero, (to, at, d_row, depth - k, job.b, total))


@called
def split_units(job, share, start, depth, block, vectors, totals):
    """Splits `depth` rows from row `start` on of `vectors` vectors of units: the gradients of all gates, and dq."""
    strips, gates = share.slots + _A, job.gates
    d, d_row = job.d_gates + start * job.d_row + block * gates * V1, job.d_row
    for _ in range(2 if job.dq else 1):
        split_gates(job, strips, d, d_row, depth, totals, vectors, gates)
        strips, totals, gates = strips + gates * STRIP, totals + gates * V1, 1
        d, d_row = job.dq + start * job.unit_row + block * V1, job.unit_row


@called
def add_products(job, share, source, start, depth, block):
    """Makes dW of the units that are split: `depth` rows from row `start` on times the same rows of a source. From start 0
    it sets dW, later it adds."""
    columns, dw, dw_row = job.P, job.dw_h, job.dw_h_row
    if source == X:
        columns, dw, dw_row = job.I, job.dw_x, job.dw_x_row
    rows = min(UNITS * LANES, min(job.H, share.panel_end * LANES) - block * LANES)
    b, strips = share.slots + _B, strips_of(columns)
    table = share.slots + _ROWS + source * 8 * ROWS_DEEP
    for strip in range(0, strips, _WIDTH):
        split_source(job.zero, b, table, depth, columns, strip, min(_WIDTH, strips - strip))
        count = min(_WIDTH * LANES, columns - strip * LANES)
        for gate in range(job.gates):
            if source == X or source_of(job, gate) == source:
                a = share.slots + _A + (gate if source == X else gradients_of(job, gate)) * STRIP
                out = dw + (gate * job.H + block * LANES) * dw_row + strip * V1
                blocks, adds = -(-depth // DEPTH), 1 if start > 0 else 0
                multiply_strips(job.zero, share.slots, rows, a, _UNIT, count, b, STRIP, blocks, out, dw_row, adds, 0)


@inlined
def weight_gradients(job, share):
    """Makes dW_x, dW_h and the biases' gradients for the units in panels (vectors of units) [panel_begin, panel_end)."""
    totals = share.slots + _A + min(UNITS, share.panel_end - share.panel_begin) * _UNIT
    for v in range((share.panel_end - share.panel_begin) * MOST_SUMS):
        clear_vector(job.zero, (totals + v * V1, totals))
    tiles_on()
    for start in range(0, job.T * job.B, ROWS_DEEP):
        if leaves_off(share):
            break
        depth = min(ROWS_DEEP, job.T * job.B - start)
        for source in range(3 if job.fed else 2):
            find_rows(job, share.slots + _ROWS + source * 8 * ROWS_DEEP, source, start, depth)
        for block in range(share.panel_begin, share.panel_end, UNITS):
            vectors = min(UNITS, share.panel_end - block)
            split_units(job, share, start, depth, block, vectors, totals + (block - share.panel_begin) * MOST_SUMS * V1)
            for source in range(3 if job.fed else 2):
                add_products(job, share, source, start, depth, block)
    tiles_off()
    store_sums(job, share, totals)


def amx_weight_gradients(job, share):
    weight_gradients(record(job), record(share))


def amx_input_gradients(job, share):
    """Makes dx of the (t, b) rows [row_begin, row_end)."""
    job, share = record(job), record(share)
    a, dx_row = job.d_gates + share.row_begin * job.d_row, job.I * V1 // LANES
    vectors, rows = job.gates * vectors_of(job), share.row_end - share.row_begin
    tiles_on()
    dx = job.dx + share.row_begin * dx_row
    multiply_rows(job.zero, share.slots, rows, a, job.d_row, vectors, job.I, job.w_x, dx, dx_row, 0, 0)
    tiles_off()


def amx_recurrent_product(zero, words):
    """Makes `recurrent_product` on AMX tiles, for the units from strip `first` on. `words` is the address of its eleven
    words."""
    room, rows, a, a_row = load_word(words), load_word(words + 8), load_word(words + 16), load_word(words + 24)
    vectors, w, first, columns = load_word(words + 32), load_word(words + 40), load_word(words + 48), load_word(words + 56)
    out, out_row, descending = load_word(words + 64), load_word(words + 72), load_word(words + 80)
    tiles_on()
    w += first * blocks_of(vectors) * BLOCK
    multiply_rows(zero, room, rows, a, a_row, vectors, columns, w, out + first * V1, out_row, 1, descending)
    tiles_off()
