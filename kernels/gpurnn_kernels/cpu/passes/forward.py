"""The forward pass over a sequence: rows x panels of one direction of one layer, led by one thread. `cells/` has the steps.

For each block of rows, a chunk of steps is projected (W_x x + b, through the same tiles as the recurrence, into slots that
stay in cache). Then each step adds W_h h to its slots and runs the cell equations over them. h alternates between two planes,
so that every panel of a step reads the old one. Rows that are through with their sequence drop off the end of the block.
"""

from ..codegen.descriptors import ROW_ENTRY, V1
from ..codegen.elementwise import clear_vector, copy_element, copy_units, store_units
from ..codegen.inline import called, inlined
from ..codegen.intrinsics import address_of, call_words, copy_memory, load_word, record, store_fence, store_word
from ..products.product import convert
from ..threads import layout
from ..threads.interrupts import stopped
from ..threads.phases import claim, finish, publish


@inlined
def batch_row(job, row):
    return load_word(job.order + 8 * row) if job.order else row


@inlined
def steps_of(job, row):
    return load_word(job.lengths + 8 * row) if job.lengths else job.T


@inlined
def time_of(job, row, s):
    """Gives the time of a row's step s: the reverse direction starts at the row's own end."""
    return steps_of(job, row) - 1 - s if job.reverse else s


@inlined
def saved_row(job, row, s):
    """Gives the index of (t, b) under which a row's step s is saved."""
    return time_of(job, row, s) * job.B + batch_row(job, row)


@inlined
def running(job, first, rows, s):
    """Gives how many of `rows` rows from `first` on have a step s."""
    while rows > 0 and steps_of(job, first + rows - 1) <= s:
        rows -= 1
    return rows


@inlined
def first_block(share):
    """Gives the first vector of units in this share's panels."""
    return share.panel_begin * share.panel


@inlined
def last_block(job, share):
    return min(share.panel_end * share.panel, -(-job.H // job.lanes))


@inlined
def outputs_in(job, block):
    """Gives the number of units in the block-th vector of h."""
    return min(job.lanes, job.P - block * job.lanes)


@inlined
def units_in(job, block):
    """Gives the number of units in the block-th vector of units."""
    return min(job.lanes, job.H - block * job.lanes)


@called
def load_rows(job, first, rows, user, stride, size, padded, block_begin, block_end):
    """Copies blocks of a user's (B, size) rows, `stride` bytes apart, into padded rows; zeros where the user gave no array
    (0)."""
    for block in range(block_begin, block_end):
        for row in range(first, first + rows):
            to = padded + row * job.row + block * V1
            if user:
                source = user + batch_row(job, row) * stride + block * V1
                copy_units(job.zero, (to, source, min(job.lanes, size - block * job.lanes)))
            else:
                clear_vector(job.zero, (to, to))


@inlined
def load_state(job, share, first, rows, h, c):
    """Loads this share's part of a user's arrays at h (B, P) and, for an LSTM, c (B, H)."""
    load_rows(job, first, rows, h, job.h_b, job.P, share.h, share.out_begin, share.out_end)
    if share.c:
        load_rows(job, first, rows, c, job.c_b, job.H, share.c, first_block(share), last_block(job, share))


@called
def store_rows(job, first, rows, padded, plane, user, stride, size, block_begin, block_end):
    """Copies blocks of padded rows into a user's (B, size) rows, each row from the plane that its last step wrote. `plane`
    and `stride` are bytes between planes and between the user's rows."""
    for block in range(block_begin, block_end):
        for row in range(first, first + rows):
            source = padded + (steps_of(job, row) & 1) * plane + row * job.row + block * V1
            to = user + batch_row(job, row) * stride + block * V1
            store_units(job.zero, (to, source, min(job.lanes, size - block * job.lanes)))


@inlined
def store_state(job, share, first, rows):
    """Stores this share's part of the final state."""
    store_rows(job, first, rows, share.h, share.h_plane, job.h_n, job.h_b, job.P, share.out_begin, share.out_end)
    if share.c:
        store_rows(job, first, rows, share.c, 0, job.c_n, job.c_b, job.H, first_block(share), last_block(job, share))


@called
def gather_converted(job, share, first, rows, s, slot):
    """Converts x of the rows at step s into `gathered`, from row `slot` on. The inputs of a row of x lie side by side."""
    to = share.gathered + slot * share.gathered_row
    if job.lengths:
        for row in range(first, first + rows):
            source = job.x + time_of(job, row, s) * job.x_t + batch_row(job, row) * job.x_b
            convert(job, to, 0, source, 0, 1, job.I)
            to += share.gathered_row
    else:
        source = job.x + time_of(job, first, s) * job.x_t + first * job.x_b
        convert(job, to, share.gathered_row, source, job.x_b, rows, job.I)


@called
def gather(job, share, first, rows, s, slot):
    """Copies x of the rows at step s side by side into `gathered`, from row `slot` on, or converts them."""
    if job.convert_kernel:
        gather_converted(job, share, first, rows, s, slot)
        return
    # the compiler must take it that a copy may have changed the job
    lanes, inputs, x_i, zero = job.lanes, job.I, job.x_i, job.zero
    item = V1 // lanes
    if not job.lengths and x_i == item and job.x_b == inputs * item and job.x_b == share.gathered_row:
        # they lie side by side in x, too
        source = job.x + time_of(job, first, s) * job.x_t + first * job.x_b
        copy_memory(share.gathered + slot * share.gathered_row, source, rows * job.x_b)
        return
    for m in range(rows):
        row = first + m
        to = share.gathered + (slot + m) * share.gathered_row
        source = job.x + time_of(job, row, s) * job.x_t + batch_row(job, row) * job.x_b
        if x_i == item:
            for i in range(0, inputs, lanes):
                copy_units(zero, (to + i * item, source + i * item, min(lanes, inputs - i)))
        else:
            for i in range(inputs):
                copy_element(zero, (to + i * item, source + i * x_i))


@called
def copy_rows(job, first, rows, s, count, to, to_t, to_b, source, source_t, source_b):
    """Copies `count` bytes of each of the rows at step s. to_t, to_b, source_t and source_b are bytes between times and
    between rows."""
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
def address_rows(job, share, first, rows, s):
    """Writes into the row table where each of the rows at step s writes y and what it saves."""
    for m in range(rows):
        row = first + m
        entry = share.row_table + ROW_ENTRY * m
        store_word(entry, job.y + time_of(job, row, s) * job.y_t + batch_row(job, row) * job.y_b)
        if job.saved:
            kept = saved_row(job, row, s)
            store_word(entry + 8, job.saved + kept * job.saved_row)
            store_word(entry + 16, job.saved_c + kept * job.unit_row)
            store_word(entry + 24, job.saved_m + kept * job.unit_row)


@inlined
def next_group(share, descending):
    """Gives the next group of panels to work on, -1 after the last one."""
    if share.claims:
        return claim(share, descending)
    group = share.taken
    if group >= share.groups:
        share.taken = 0
        return -1
    share.taken = group + 1
    return share.groups - 1 - group if descending else group


def copy_steps(job, share, first, rows, begin, end):
    """Copies x and y of the steps [begin, end) to a job's x_copy and y_copy, a stretch of the block's rows a piece."""
    job, share = record(job), record(share)
    item, groups = V1 // job.lanes, share.groups
    piece = next_group(share, 0)
    while piece >= 0:
        row, last = first + rows * piece // groups, first + rows * (piece + 1) // groups
        for s in range(begin, end):
            count = min(last, first + running(job, first, rows, s)) - row
            if count > 0 and job.x_copy:
                own = job.x_copy, job.x_copy_t, job.x_copy_b
                copy_rows(job, row, count, s, job.I * item, *own, job.x, job.x_t, job.x_b)
            if count > 0 and job.y_copy:
                out = job.y_copy, job.y_copy_t, job.y_copy_b
                copy_rows(job, row, count, s, job.P * item, *out, job.y, job.y_t, job.y_b)
        piece = next_group(share, 0)


@inlined
def leaves_off(share):
    """Tells whether a signal's handler has raised, so that nobody needs what the share makes. Where a handler has forked,
    the child's team is new and has no owner: the share goes on alone."""
    found = share.stop and stopped(share.stop, share.asks)
    if share.claims and load_word(share.claims + layout.OWNER) == 0:
        share.claims = 0
    return found


@inlined
def run_phase(share, addresses, kernel, a, b, c, d, groups, cuts):
    """Runs a kernel over `groups` groups of panels, with the other threads of the team that come in time."""
    share.groups = groups
    if share.claims and groups > 1:
        publish(share.claims, kernel, addresses[1], a, b, c, d, share.x, share.x_row, share.turn, groups, cuts)
        call_words(kernel, (*addresses, a, b, c, d))
        others = groups - share.pieces
        share.pieces = 0
        if others and finish(share.claims, others, 0):
            share.claims = 0
    else:
        claims = share.claims
        share.claims = 0
        call_words(kernel, (*addresses, a, b, c, d))
        share.claims = claims


def forward(job, share):
    """Takes all rows of a share through their sequences, by the job's kernels `project_kernel`, `step_kernel` and
    `second_kernel`."""
    addresses = address_of(job), address_of(share)
    job, share = record(job), record(share)
    item = V1 // job.lanes
    for first in range(share.row_begin, share.row_end, share.row_cap):
        rows = min(share.row_cap, share.row_end - first)
        load_state(job, share, first, rows, job.h_0, job.c_0)
        # rows of x that lie evenly spaced in the order of the slots, or of the one step in them, are projected where they are
        as_is = job.x_i == item and job.convert_kernel == 0
        lone = rows == 1 and as_is
        even = as_is and not job.lengths and (share.fused or (job.x_t == rows * job.x_b and not job.reverse))
        active = running(job, first, rows, 0)
        s = 0
        while active > 0:
            begin = s
            slot = 0
            remaining = active
            while remaining > 0 and slot + remaining <= share.capacity and (slot == 0 or not share.fused):
                if not (lone or even):
                    gather(job, share, first, remaining, s, slot)
                slot += remaining
                s += 1
                remaining = running(job, first, remaining, s)
            if lone or even:
                x = job.x + batch_row(job, first) * job.x_b + time_of(job, first, begin) * job.x_t
                x_row = job.x_b
                if lone:
                    x_row = -job.x_t if job.reverse else job.x_t
            else:
                x, x_row = share.gathered, share.gathered_row
            if share.fused:
                share.x, share.x_row = x, x_row
            else:
                run_phase(share, addresses, job.project_kernel, x, x_row, slot, 0, share.groups_1, share.cuts_1)
            slot = 0
            for now in range(begin, s):
                run_phase(share, addresses, job.step_kernel, first, active, now, slot, share.groups_1, share.cuts_1)
                if share.groups_2:
                    run_phase(share, addresses, job.second_kernel, first, active, now, slot, share.groups_2, share.cuts_2)
                slot += active
                active = running(job, first, active, now + 1)
            if job.copy_kernel:
                run_phase(share, addresses, job.copy_kernel, first, rows, begin, s, share.groups_3, share.cuts_3)
            if active > 0 and leaves_off(share):
                active = 0
        store_state(job, share, first, rows)
        share.turn += s
    # the backward pass may read on other threads
    if job.streaming:
        store_fence()
