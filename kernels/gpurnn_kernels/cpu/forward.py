"""The forward pass over a sequence: rows x panels of one direction of one layer, run by one thread. The cells: `steps/`.

Per block of rows: a chunk of steps is projected (W_x x + b, through the same tiles as the recurrence, into slots that stay
in cache), then each step adds W_h h to its slots and runs the cell equations over them. h alternates between two planes, so
that every panel of a step reads the old one. Rows that are through with their sequence drop off the end of the block.
"""

from .inline import called, inlined
from .job import VECTOR_BYTES
from .memory import address_of, call_words, copy_memory, load_word, record, store_fence, store_word
from .pointwise import clear_vector, copy_element, copy_units, store_units
from .threads import layout
from .threads.interrupts import stopped
from .threads.phases import claim, finish, publish

V1 = VECTOR_BYTES
V2 = 2 * VECTOR_BYTES
V3 = 3 * VECTOR_BYTES
V4 = 4 * VECTOR_BYTES
ROW_ENTRY = 32  # bytes of what a row of a step writes to: its y; where its gates and its c are kept


@inlined
def batch_row(job, row):  # type: ignore[no-untyped-def]
    return load_word(job.order + 8 * row) if job.order else row


@inlined
def steps_of(job, row):  # type: ignore[no-untyped-def]
    return load_word(job.lengths + 8 * row) if job.lengths else job.T


@inlined
def time_of(job, row, s):  # type: ignore[no-untyped-def]
    """The time of a row's step s: the reverse direction starts at the row's own end."""
    return steps_of(job, row) - 1 - s if job.reverse else s


@inlined
def saved_row(job, row, s):  # type: ignore[no-untyped-def]
    """The index of (t, b) that a row's step s is kept under."""
    return time_of(job, row, s) * job.B + batch_row(job, row)


@inlined
def running(job, first, rows, s):  # type: ignore[no-untyped-def]
    """How many of `rows` rows from `first` on have a step s."""
    while rows > 0 and steps_of(job, first + rows - 1) <= s:
        rows -= 1
    return rows


@inlined
def first_block(work):  # type: ignore[no-untyped-def]
    """Of the vectors of units in this work's panels."""
    return work.panel_0 * work.panel


@inlined
def last_block(job, work):  # type: ignore[no-untyped-def]
    return min(work.panel_1 * work.panel, -(-job.H // job.lanes))


@inlined
def outputs_in(job, block):  # type: ignore[no-untyped-def]
    """Units in the block-th vector of h."""
    return min(job.lanes, job.P - block * job.lanes)


@inlined
def units_in(job, block):  # type: ignore[no-untyped-def]
    """Units in the block-th vector of units."""
    return min(job.lanes, job.H - block * job.lanes)


@called
def load_rows(job, first, rows, user, stride, size, padded, block_0, block_1):  # type: ignore[no-untyped-def]
    """A user's (B, size) rows, some blocks of them, into padded rows; zeros where the user gave none."""
    for block in range(block_0, block_1):
        for row in range(first, first + rows):
            to = padded + row * job.row + block * V1
            if user:
                source = user + batch_row(job, row) * stride + block * V1
                copy_units(job.zero, (to, source, min(job.lanes, size - block * job.lanes)))
            else:
                clear_vector(job.zero, (to, to))


@inlined
def load_state(job, work, first, rows, h, c):  # type: ignore[no-untyped-def]
    """This work's part of the arrays that a user has at h (B, P) and, for an LSTM, c (B, H)."""
    load_rows(job, first, rows, h, job.h_b, job.P, job.h, work.out_0, work.out_1)
    if job.c:
        load_rows(job, first, rows, c, job.c_b, job.H, job.c, first_block(work), last_block(job, work))


@called
def store_rows(job, first, rows, padded, plane, user, stride, size, block_0, block_1):  # type: ignore[no-untyped-def]
    """Blocks of the padded rows, each from the plane that its last step wrote, into a user's (B, size) rows."""
    for block in range(block_0, block_1):
        for row in range(first, first + rows):
            source = padded + (steps_of(job, row) & 1) * plane + row * job.row + block * V1
            to = user + batch_row(job, row) * stride + block * V1
            store_units(job.zero, (to, source, min(job.lanes, size - block * job.lanes)))


@inlined
def store_state(job, work, first, rows):  # type: ignore[no-untyped-def]
    """This work's part of the final state."""
    store_rows(job, first, rows, job.h, job.h_plane, job.h_n, job.h_b, job.P, work.out_0, work.out_1)
    if job.c:
        store_rows(job, first, rows, job.c, 0, job.c_n, job.c_b, job.H, first_block(work), last_block(job, work))


@called
def gather(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
    """x of the rows at step s, side by side, from slot on."""
    # the compiler must take it that a copy may have changed the job
    lanes, inputs, x_i, zero = job.lanes, job.I, job.x_i, job.zero
    item = V1 // lanes
    if not job.lengths and x_i == item and job.x_b == inputs * item and job.x_b == work.gathered_row:
        # they lie side by side in x, too
        source = job.x + time_of(job, first, s) * job.x_t + first * job.x_b
        copy_memory(work.gathered + slot * work.gathered_row, source, rows * job.x_b)
        return
    for m in range(rows):
        row = first + m
        to = work.gathered + (slot + m) * work.gathered_row
        source = job.x + time_of(job, row, s) * job.x_t + batch_row(job, row) * job.x_b
        if x_i == item:
            for i in range(0, inputs, lanes):
                copy_units(zero, (to + i * item, source + i * item, min(lanes, inputs - i)))
        else:
            for i in range(inputs):
                copy_element(zero, (to + i * item, source + i * x_i))


@called
def copy_rows(job, first, rows, s, count, to, to_t, to_b, source, source_t, source_b):  # type: ignore[no-untyped-def]
    """`count` bytes of each of the rows at step s."""
    last = first + rows
    if job.lengths:
        for row in range(first, last):
            t, b = time_of(job, row, s), batch_row(job, row)
            copy_memory(to + t * to_t + b * to_b, source + t * source_t + b * source_b, count)
    elif to_b == count and source_b == count:
        t = time_of(job, first, s)
        copy_memory(to + t * to_t + first * to_b, source + t * source_t + first * source_b, (last - first) * count)
    else:
        t = time_of(job, first, s)
        for row in range(first, last):
            copy_memory(to + t * to_t + row * to_b, source + t * source_t + row * source_b, count)


@called
def address_rows(job, work, first, rows, s):  # type: ignore[no-untyped-def]
    """Fills in what each of the rows at step s writes to."""
    for m in range(rows):
        row = first + m
        entry = work.row_table + ROW_ENTRY * m
        store_word(entry, job.y + time_of(job, row, s) * job.y_t + batch_row(job, row) * job.y_b)
        if job.saved:
            kept = saved_row(job, row, s)
            store_word(entry + 8, job.saved + kept * job.saved_row)
            store_word(entry + 16, job.saved_c + kept * job.kept_row)


@inlined
def take_group(work, back):  # type: ignore[no-untyped-def]
    """-> the next group of panels to work on, -1 after the last one."""
    if work.claims:
        return claim(work, back)
    group = work.taken
    if group >= work.groups:
        work.taken = 0
        return -1
    work.taken = group + 1
    return work.groups - 1 - group if back else group


def copy_steps(job, work, first, rows, begin, end):  # type: ignore[no-untyped-def]
    """Copies x and y of the steps [begin, end) to where a job wants them, a stretch of the block's rows a piece."""
    job, work = record(job), record(work)
    item, groups = V1 // job.lanes, work.groups
    piece = take_group(work, 0)
    while piece >= 0:
        row, last = first + rows * piece // groups, first + rows * (piece + 1) // groups
        for s in range(begin, end):
            count = min(last, first + running(job, first, rows, s)) - row
            if count > 0 and job.own_x:
                own = job.own_x, job.own_x_t, job.own_x_b
                copy_rows(job, row, count, s, job.I * item, *own, job.x, job.x_t, job.x_b)
            if count > 0 and job.out_y:
                out = job.out_y, job.out_y_t, job.out_y_b
                copy_rows(job, row, count, s, job.P * item, *out, job.y, job.y_t, job.y_b)
        piece = take_group(work, 0)


@inlined
def leaves_off(work):  # type: ignore[no-untyped-def]
    """Whether a signal handler has raised, so that nobody wants what the work makes. Where it has forked, the child's team is
    new and has no owner: the work goes on alone."""
    found = work.stop and stopped(work.stop, work.asks)
    if work.claims and load_word(work.claims + layout.OWNER) == 0:
        work.claims = 0
    return found


@inlined
def run_phase(work, addresses, kernel, a, b, c, d, groups, cuts):  # type: ignore[no-untyped-def]
    """A kernel over `groups` groups of panels, with whoever else of the team comes in time."""
    work.groups = groups
    if work.claims and groups > 1:
        publish(work.claims, kernel, addresses[1], a, b, c, d, work.x, work.x_row, work.turn, groups, cuts)
        call_words(kernel, (*addresses, a, b, c, d))
        others = groups - work.pieces
        work.pieces = 0
        if others and finish(work.claims, others, 0):
            work.claims = 0
    else:
        claims = work.claims
        work.claims = 0
        call_words(kernel, (*addresses, a, b, c, d))
        work.claims = claims


def forward(job, work):  # type: ignore[no-untyped-def]
    """All rows of a work through their sequences, by the job's kernels `project_kernel` and `step_kernel`."""
    addresses = address_of(job), address_of(work)
    job, work = record(job), record(work)
    item = V1 // job.lanes
    for first in range(work.row_0, work.row_1, work.row_cap):
        rows = min(work.row_cap, work.row_1 - first)
        load_state(job, work, first, rows, job.h_0, job.c_0)
        # rows of x that lie evenly spaced in the order of the slots, or of the one step in them, are projected where they are
        lone = rows == 1 and job.x_i == item
        even = job.x_i == item and not job.lengths and (work.fused or (job.x_t == rows * job.x_b and not job.reverse))
        active = running(job, first, rows, 0)
        s = 0
        while active > 0:
            begin = s
            slot = 0
            left = active
            while left > 0 and slot + left <= work.capacity and (slot == 0 or not work.fused):
                if not (lone or even):
                    gather(job, work, first, left, s, slot)
                slot += left
                s += 1
                left = running(job, first, left, s)
            if lone or even:
                x = job.x + batch_row(job, first) * job.x_b + time_of(job, first, begin) * job.x_t
                x_row = job.x_b
                if lone:
                    x_row = -job.x_t if job.reverse else job.x_t
            else:
                x, x_row = work.gathered, work.gathered_row
            if work.fused:
                work.x, work.x_row = x, x_row
            else:
                run_phase(work, addresses, job.project_kernel, x, x_row, slot, 0, work.groups_1, work.cuts_1)
            slot = 0
            for now in range(begin, s):
                run_phase(work, addresses, job.step_kernel, first, active, now, slot, work.groups_1, work.cuts_1)
                if work.groups_2:
                    run_phase(work, addresses, job.second_kernel, first, active, now, slot, work.groups_2, work.cuts_2)
                slot += active
                active = running(job, first, active, now + 1)
            if job.copy_kernel:
                run_phase(work, addresses, job.copy_kernel, first, rows, begin, s, work.groups_3, work.cuts_3)
            if active > 0 and leaves_off(work):
                active = 0
        store_state(job, work, first, rows)
        work.turn += s
    # the backward pass may read on other threads
    if job.past:
        store_fence()


def forward_own(job, work):  # type: ignore[no-untyped-def]
    """`own_kernel` over a job of the work's own: a copy, but for `own_fields`: the bytes of a job, how many fields there are,
    then the offset and the value of each."""
    source, addressed = address_of(job), address_of(work)
    work = record(work)
    own, fields = work.own, work.own_fields
    copy_memory(own, source, load_word(fields))
    for i in range(load_word(fields + 8)):
        field = fields + 16 * (i + 1)
        store_word(own + load_word(field), load_word(field + 8))
    call_words(work.own_kernel, (own, addressed))
