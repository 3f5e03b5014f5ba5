"""Phases of a command: pieces of work, which threads claim one by one. A phase ends when its pieces are done, whoever did
them.

The calling thread (rank 0) publishes a phase: for each rank a *claim word*, `phase << 28 | pieces << 14 | claimed`, beside the
words that say what a piece is. Every thread claims by compare-and-swap, its own rank's pieces first, then the others'. A
worker counts the pieces that it has done. The caller takes part, and at the end waits until the workers' counts have grown by
the pieces that it did not do itself. So it waits for pieces that a thread has begun, never for a thread: a sleeping thread has
begun nothing, and the caller has done its pieces.

No thread touches memory of a command that is over. Before a claim succeeds, a worker reads the team's own memory alone, which
is never freed. From a claim to its report the phase cannot end, so all that the piece reads and writes is there. A claim that
comes late fails: its phase's pieces are all claimed, or the word has another phase's number (numbers come again after 2**35
phases). A thread that holds a piece may claim more of the same phase, for the same reason. A worker of a rank that the phase
has no work for looks at `RANKS` before it claims: where the claim then succeeds, that word was this phase's, too.

Each load sees the store that it must see. A piece's inputs: the caller writes them, and the words beside the claim word,
before it stores the claim word with release; the compare-and-swap acquires. A piece's outputs: the worker stores its count
with release; the caller loads it with acquire before it goes on, and publishes the next phase with release, which hands it on
to third threads. Parking: the worker stores `parked`, then loads its claim word; the caller stores the claim word, then loads
`parked`. All four stand in one total order, so one of the two threads sees the other's store. The caller releases the lock
once for each time that `parked` goes from 1 to 2, and the worker acquires it as often.

Bits cannot depend on who computes. Each piece writes elements of its own, from values that no piece of its phase writes, in
one order of operations. A thread's own scratch memory hands nothing on from one piece to the next.

`layout.py` has the layout of a team's memory.
"""

from ..codegen.inline import called, inlined
from ..codegen.intrinsics import (
    call0,
    call2,
    call_words,
    exchange,
    load_acquire,
    load_ordered,
    load_word,
    pause,
    store_ordered,
    store_release,
    store_word,
)
from . import layout
from .clock import clock
from .interrupts import leave_off, stopped
from .layout import pieces_of, report_of

MOMENT = 64  # looks before a thread takes pieces whose owner has not begun
SPINS = 200  # looks before a waiter gives its CPU away, 25 ns each
STALL = 300_000  # ns: longer waits for one piece are somebody else's time slice
LONG_STALL = 1_000_000  # ns: after such a wait a sequence goes on alone at once
NAP = 50  # microseconds between looks of a caller that has waited for a STALL


@inlined
def some_left(word):
    """Tells whether a claim word has unclaimed pieces."""
    return (word >> layout.PIECES_SHIFT & layout.MASK) > (word & layout.MASK)


@inlined
def hook(team, place):
    """Calls the function that a test has set, if any, with the number of the place."""
    function = load_word(team + layout.HOOK)
    if function:
        call_words(function, (place,))


@called
def publish(team, kernel, shares, a, b, c, d, x, x_row, turn, groups, starts):
    """Starts a phase of `groups` pieces. Pieces from starts[rank] to starts[rank + 1] are meant for a rank.

    The function at `kernel` runs over the team's shares, one a rank, at `shares`, with the words a to d. With kernel 0 each
    piece is a share itself, by its index in the table `shares`. x, x_row and turn are fields that every share gets from the
    caller's.
    """
    number = (load_word(team + layout.PHASE) + 1) & layout.PHASES
    store_word(team + layout.PHASE, number)
    size = load_word(team + layout.SIZE)
    last = groups
    for i in range(size):
        rank = size - 1 - i
        at = pieces_of(team, rank)
        first = load_word(starts + 8 * rank)
        store_word(at + layout.KERNEL, kernel)
        store_word(at + layout.SHARES, shares)
        store_word(at + layout.ARGUMENTS, a)
        store_word(at + layout.ARGUMENTS + 8, b)
        store_word(at + layout.ARGUMENTS + 16, c)
        store_word(at + layout.ARGUMENTS + 24, d)
        store_word(at + layout.X, x)
        store_word(at + layout.X_ROW, x_row)
        store_word(at + layout.TURN, turn)
        store_word(at + layout.GROUPS, groups)
        store_word(at + layout.FIRST, first)
        store_word(at + layout.RANKS, size)
        word = number << layout.PHASE_SHIFT | (last - first) << layout.PIECES_SHIFT
        if rank == 0:
            store_release(at, word)
        else:
            store_ordered(at, word)
            if last > first:
                wake(team, rank)
        last = first
    hook(team, 0)


@inlined
def wake(team, rank):
    """Wakes a worker that has parked."""
    report = report_of(team, rank)
    if load_ordered(report + layout.PARKED) == 1 and exchange(report + layout.PARKED, 1, 2):
        call2(load_word(team + layout.RELEASE), load_word(report + layout.LOCK), 0)


@inlined
def park(team, rank, seen):
    """Sleeps until the caller publishes pieces for this rank, unless it already has since the claim word was `seen`."""
    report = report_of(team, rank)
    store_ordered(report + layout.PARKED, 1)
    hook(team, 1)
    if load_ordered(pieces_of(team, rank)) == seen or exchange(report + layout.PARKED, 1, 0) == 0:
        call2(load_word(team + layout.ACQUIRE), load_word(report + layout.LOCK), 1)
        store_ordered(report + layout.PARKED, 0)


@inlined
def done_by_others(team):
    """Gives the number of pieces that the workers of this command have done since they started."""
    done = 0
    for rank in range(1, load_word(team + layout.SIZE)):
        done += load_acquire(report_of(team, rank))
    return done


@called
def finish(team, others, stop):
    """Waits for `others` pieces of this phase, which workers have claimed. Tells whether the wait took a time slice. `stop` is
    the address at which the command's shares look whether they leave off, or 0.

    The caller spins, then gives its CPU away at every look, and in the end sleeps a little between looks: a worker of lower
    priority may need this CPU. The time for which it spins adapts: it is halved each time that spinning was in vain, and
    doubled when it paid.
    """
    target = load_word(team + layout.EXPECTED) + others
    store_word(team + layout.EXPECTED, target)
    looks, began, spins = 0, 0, load_word(team + layout.PATIENCE)
    while done_by_others(team) != target:
        looks += 1
        if looks < spins:
            pause()
        else:
            now = clock(team + layout.CLOCK)
            if began == 0:
                began = now
            if stop:
                stopped(stop, 1)
                if load_word(team + layout.OWNER) == 0:
                    # a handler has forked: what workers of the parent had claimed will never be done
                    leave_off(stop)
                    return 1
            if now - began > STALL and load_word(team + layout.SLEEP):
                call2(load_word(team + layout.SLEEP), NAP, 0)
            else:
                call0(load_word(team + layout.YIELD))
    if began == 0:
        if looks > 0 and spins < SPINS:
            store_word(team + layout.PATIENCE, min(SPINS, 2 * spins))
        return 0
    store_word(team + layout.PATIENCE, max(4, spins >> 1))
    waited = clock(team + layout.CLOCK) - began
    store_word(team + layout.WAITED, load_word(team + layout.WAITED) + waited)
    return 1 if waited > LONG_STALL else 0


@inlined
def once_begun(share, at, word):
    """Gives another rank a moment to begin its pieces, since it has their weights in its cache; then gives their claim
    word. The moment is halved each time that it was in vain, and whole again once the other rank is there."""
    looks = 0
    while word & layout.MASK == 0 and looks < share.patience:
        pause()
        looks += 1
        word = load_acquire(at)
    share.patience = share.patience >> 1 if word & layout.MASK == 0 else MOMENT
    return word


@called
def claim(share, descending):
    """Gives the next piece of the phase for a share whose `claims` are the team's: one that is meant for its rank, then
    those of the other ranks; -1 after the last one. descending: the last piece of a rank comes first."""
    team = share.claims
    if share.given:
        given = share.given - 1
        share.given = 0
        share.pieces += 1
        return piece_at(pieces_of(team, given >> 14), given & layout.MASK, descending)
    for other in range(share.team_size):
        rank = share.rank + other
        if rank >= share.team_size:
            rank -= share.team_size
        at = pieces_of(team, rank)
        word = load_acquire(at)
        if other and some_left(word):
            word = once_begun(share, at, word)
        while some_left(word):
            if exchange(at, word, word + 1):
                hook(team, 2)
                share.pieces += 1
                return piece_at(at, word & layout.MASK, descending)
            word = load_acquire(at)
    return -1


@inlined
def piece_at(at, index, descending):
    """Gives the number in the phase of the index-th piece of a rank, whose pieces stand at the address `at`."""
    count = load_word(at) >> layout.PIECES_SHIFT & layout.MASK
    return load_word(at + layout.FIRST) + (count - 1 - index if descending else index)
