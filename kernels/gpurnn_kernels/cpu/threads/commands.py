"""Commands in machine code: the caller's side, and a worker's life. `phases.py` says how they share pieces."""

from ..codegen.descriptors import SHARE
from ..codegen.inline import called, inlined
from ..codegen.intrinsics import (
    call0,
    call2,
    call_words,
    exchange,
    flush_denormals,
    load_acquire,
    load_word,
    pause,
    restore_denormals,
    store_release,
    store_word,
)
from . import layout
from .clock import clock
from .interrupts import STOP, begin
from .layout import pieces_of, report_of
from .phases import SPINS, STALL, done_by_others, finish, hook, park, publish, some_left

LOOKS_BEFORE_PARKING = 10_000  # 25 ns each: longer than Python takes between two commands of a training step
LONELY_COMMANDS, LONELY_FOR = 8, 200_000  # commands in a row, and ns, in which no worker came
# what `run_command` reports: a wait for a time slice; nobody came for some time; a signal handler has raised
HELD_UP, ALONE, INTERRUPTED = 1, 2, 4
REGION_LOOKS = 256  # looks of a thread of OpenMP before it gives its CPU away
REGION_ENDS = -1  # a claim word without pieces
SHARE_BYTES = SHARE.itemsize
_AT = {name: SHARE.fields[name][1] for name in SHARE.names}  # type: ignore[index, union-attr]
_JOB, _KERNEL, _CLAIMS, _GIVEN, _PIECES = (_AT[name] for name in ("job", "kernel", "claims", "given", "pieces"))
_X, _X_ROW, _TURN, _GROUPS, _LEADS = (_AT[name] for name in ("x", "x_row", "turn", "groups", "leads"))
_STOP, _ASKS = _AT["stop"], _AT["asks"]


@inlined
def run_share(share, asks):
    """Runs one share. asks: the calling thread is the command's caller, which looks for signals."""
    store_word(share + _ASKS, asks)
    call_words(load_word(share + _KERNEL), (load_word(share + _JOB), share))


@called
def run_alone(shares, count, stop):
    """Runs a table of shares on the calling thread, with denormals flushed to zero."""
    before = flush_denormals()
    step = max(1, load_word(shares + _LEADS))
    for index in range(0, count, step):
        share = shares + index * SHARE_BYTES
        store_word(share + _CLAIMS, 0)
        store_word(share + _STOP, stop)
        run_share(share, 1)
    restore_denormals(before)


@called
def lead(team, shares, count, stop):
    """Runs shares that take others along, a phase at a time; alone from the first long wait on."""
    held_up = 0
    for index in range(0, count, load_word(shares + _LEADS)):
        share = shares + index * SHARE_BYTES
        store_word(share + _CLAIMS, 0 if held_up else team)
        store_word(share + _STOP, stop)
        run_share(share, 1)
        held_up = load_word(share + _CLAIMS) == 0


@called
def share_out(team, shares, starts, count, stop):
    """Runs independent shares as the pieces of one phase."""
    for index in range(count):
        store_word(shares + index * SHARE_BYTES + _STOP, stop)
    publish(team, 0, shares, 0, 0, 0, 0, 0, 0, 0, count, starts)
    own = 0
    for rank in range(load_word(team + layout.SIZE)):
        at = pieces_of(team, rank)
        word = load_acquire(at)
        while some_left(word):
            if exchange(at, word, word + 1):
                hook(team, 3)
                run_share(shares + (load_word(at + layout.FIRST) + (word & layout.MASK)) * SHARE_BYTES, 1)
                own += 1
            word = load_acquire(at)
    if own < count:
        finish(team, count - own, stop)


@called
def judge(team, began, by_others):
    """Reports what a command has met: HELD_UP, ALONE, both or 0. `began` and `by_others` are the time when it began and the
    pieces that workers had done by then."""
    found, waited = 0, load_word(team + layout.WAITED)
    if waited > STALL and 4 * waited > clock(team + layout.CLOCK) - began:
        found = HELD_UP
    lonely = 0
    if load_word(team + layout.EXPECTED) == by_others:
        lonely = load_word(team + layout.LONELY) + 1
        if lonely == 1:
            store_word(team + layout.LONELY_SINCE, began)
        elif lonely >= LONELY_COMMANDS and began - load_word(team + layout.LONELY_SINCE) > LONELY_FOR:
            lonely = 0
            found |= ALONE
    store_word(team + layout.LONELY, lonely)
    return found


@called
def run_with_team(team, shares, starts, count, stop):
    """Runs a table of shares as rank 0, and reports like `judge`."""
    began, by_others = clock(team + layout.CLOCK), done_by_others(team)
    store_word(team + layout.EXPECTED, by_others)
    store_word(team + layout.WAITED, 0)
    before = flush_denormals()
    if load_word(shares + _LEADS):
        lead(team, shares, count, stop)
    else:
        share_out(team, shares, starts, count, stop)
    restore_denormals(before)
    return judge(team, began, by_others)


@called
def run_command(team, size, interrupts, shares, starts, count):
    """Runs a table of shares with the workers of ranks below `size`. Shares from starts[rank] to starts[rank + 1] are meant
    for a rank. The calling thread runs all alone where another caller has the team, or without a team (0). Reports like
    `judge`, and INTERRUPTED."""
    stop, found = begin(interrupts), 0
    if team == 0 or exchange(team + layout.OWNER, 0, 1) == 0:
        run_alone(shares, count, stop)
    else:
        store_word(team + layout.SIZE, size)
        if load_word(team + layout.PARALLEL):
            found = run_region(team, shares, starts, count, stop)
        else:
            found = run_with_team(team, shares, starts, count, stop)
        store_release(team + layout.OWNER, 0)
    if stop and load_acquire(stop + STOP):
        found |= INTERRUPTED
    return found


@called
def run_region(team, shares, starts, count, stop):
    """Runs a table of shares in a parallel region of OpenMP: `serve_region` on each of its threads. Reports like `judge`."""
    store_word(team + layout.REGION_WORKS, shares)
    store_word(team + layout.REGION_STARTS, starts)
    store_word(team + layout.REGION_COUNT, count)
    store_word(team + layout.REGION_STOP, stop)
    size = load_word(team + layout.SIZE)
    for rank in range(1, size):
        store_word(pieces_of(team, rank), 0)
    call_words(load_word(team + layout.PARALLEL), (load_word(team + layout.SERVE), team, size, 0))
    return load_word(team + layout.REGION_FOUND)


@called
def help_with(team, rank, at, other, index):
    """Runs a claimed piece, the index-th of the pieces at an address, and more of the same phase until none remains. Gives
    the number of pieces that it has run. `other` is the rank that the pieces are meant for."""
    kernel, shares = load_word(at + layout.KERNEL), load_word(at + layout.SHARES)
    if kernel == 0:
        run_share(shares + (load_word(at + layout.FIRST) + index) * SHARE_BYTES, 0)
        return 1
    share = shares + rank * SHARE_BYTES
    store_word(share + _CLAIMS, team)
    store_word(share + _GIVEN, (other << 14 | index) + 1)
    store_word(share + _PIECES, 0)
    store_word(share + _X, load_word(at + layout.X))
    store_word(share + _X_ROW, load_word(at + layout.X_ROW))
    store_word(share + _TURN, load_word(at + layout.TURN))
    store_word(share + _GROUPS, load_word(at + layout.GROUPS))
    a, b = load_word(at + layout.ARGUMENTS), load_word(at + layout.ARGUMENTS + 8)
    c, d = load_word(at + layout.ARGUMENTS + 16), load_word(at + layout.ARGUMENTS + 24)
    call_words(kernel, (load_word(share + _JOB), share, a, b, c, d))
    return load_word(share + _PIECES)


@called
def help_once(team, rank, done):
    """Claims and runs pieces until none remains, this rank's first. Gives this rank's claim word then, and the pieces that
    this rank has done since it started."""
    size, seen = load_word(team + layout.SIZE), load_acquire(pieces_of(team, rank))
    for i in range(size if rank < size else 0):
        other = rank + i
        if other >= size:
            other -= size
        at = pieces_of(team, other)
        word = load_acquire(at)
        while some_left(word) and rank < load_word(at + layout.RANKS):
            if exchange(at, word, word + 1):
                hook(team, 4)
                done += help_with(team, rank, at, other, word & layout.MASK)
                hook(team, 5)
                store_release(report_of(team, rank), done)
            word = load_acquire(at)
        if i == 0:
            seen = word
    return seen, done


@inlined
def join(team):
    """Gives a starting worker its rank. The worker blocks all signals, which are for the program's own threads."""
    rank = 0
    while rank == 0:
        found = load_acquire(team + layout.WORKERS)
        if exchange(team + layout.WORKERS, found, found + 1):
            rank = found + 1
    if rank < layout.MOST_THREADS:
        if load_word(team + layout.BLOCK_SIGNALS):
            call_words(
                load_word(team + layout.BLOCK_SIGNALS), (load_word(team + layout.SIGNALS), team + layout.ALL_SIGNALS, 0)
            )
        report = report_of(team, rank)
        if load_word(team + layout.THREAD_ID):
            store_word(report + layout.ID, call0(load_word(team + layout.THREAD_ID)))
        lock = call2(load_word(team + layout.NEW_LOCK), 0, 0)
        call2(load_word(team + layout.ACQUIRE), lock, 1)
        store_word(report + layout.LOCK, lock)
    return rank


def serve(team):
    """Runs a worker's life: it looks for pieces, and parks when none have come for some time."""
    rank = join(team)
    flush_denormals()
    mine, done, seen, looks = pieces_of(team, rank), 0, 0, 0
    while rank < layout.MOST_THREADS:  # for ever
        if load_acquire(mine) == seen:
            looks += 1
            if looks >= LOOKS_BEFORE_PARKING:
                park(team, rank, seen)
                looks = 0
            elif looks < SPINS or looks % 16:
                pause()
            else:
                call0(load_word(team + layout.YIELD))
        else:
            looks = 0
            seen, done = help_once(team, rank, done)


def serve_region(team):
    """Runs a thread of OpenMP's team in a parallel region, which ends with the command that rank 0 runs."""
    size, rank = load_word(team + layout.SIZE), call0(load_word(team + layout.RANK))
    if rank == 0:
        shares, starts = load_word(team + layout.REGION_WORKS), load_word(team + layout.REGION_STARTS)
        count, stop = load_word(team + layout.REGION_COUNT), load_word(team + layout.REGION_STOP)
        store_word(team + layout.REGION_FOUND, run_with_team(team, shares, starts, count, stop))
        for other in range(1, size):
            store_release(pieces_of(team, other), REGION_ENDS)
    elif rank < size:
        before = flush_denormals()
        mine = pieces_of(team, rank)
        done, seen, looks = load_word(report_of(team, rank)), 0, 0
        while seen != REGION_ENDS:
            if load_acquire(mine) == seen:
                looks += 1
                if looks % REGION_LOOKS:
                    pause()
                else:
                    call0(load_word(team + layout.YIELD))
            else:
                looks = 0
                seen, done = help_once(team, rank, done)
        restore_denormals(before)
