"""The layout of a team's memory, in blocks of BLOCK bytes that few threads write. All names are offsets in bytes.

OWNER        the caller's claim on the team
PHASE ..     the caller's words: the phases it has published, its waits and what it waited for
YIELD ..     addresses of functions, and how many workers have started
ALL_SIGNALS  a set of all signals
CLOCK        the caller's clock

Then come a block a rank with its pieces (`pieces_of`), and a block a rank with its report (`report_of`).
"""

from ..codegen.inline import inlined

BLOCK = 128  # two cache lines: processors fetch them in pairs
MOST_THREADS = 256

OWNER = 0
PHASE, SIZE, EXPECTED, PATIENCE, WAITED, LONELY, LONELY_SINCE = (BLOCK + 8 * i for i in range(7))
REGION_WORKS, REGION_STARTS, REGION_COUNT, REGION_STOP, REGION_FOUND = (BLOCK + 8 * i for i in range(7, 12))
YIELD, SLEEP, RELEASE, ACQUIRE, NEW_LOCK, THREAD_ID = (2 * BLOCK + 8 * i for i in range(6))
BLOCK_SIGNALS, SIGNALS, HOOK, WORKERS, PARALLEL, SERVE, RANK = (2 * BLOCK + 8 * i for i in range(6, 13))
ALL_SIGNALS = 3 * BLOCK
CLOCK = 4 * BLOCK
PIECES = 5 * BLOCK
REPORTS = PIECES + MOST_THREADS * BLOCK
BYTES = REPORTS + MOST_THREADS * BLOCK

# in a rank's pieces, after the claim word
KERNEL, SHARES, ARGUMENTS, X, X_ROW, TURN, GROUPS, FIRST, RANKS = (8 * i for i in (1, 2, 3, 7, 8, 9, 10, 11, 12))
# in a rank's report, after the number of pieces done
PARKED, LOCK, ID = 8, 16, 24

# a claim word: phase << PHASE_SHIFT | pieces << PIECES_SHIFT | claimed
PIECES_SHIFT, PHASE_SHIFT = 14, 28
MASK = (1 << PIECES_SHIFT) - 1
PHASES = (1 << 35) - 1


@inlined
def pieces_of(team, rank):
    """Gives the address of a rank's pieces."""
    return team + PIECES + BLOCK * rank


@inlined
def report_of(team, rank):
    """Gives the address of a rank's report."""
    return team + REPORTS + BLOCK * rank
