"""A blocking says how a share cuts its work: rows, steps and panels at once, and where the slots of a chunk of steps lie.

Every tuning constant of the programs stands here; `threads/partition.py` has those of how threads share work. None of them
changes a result, but for the choice of what AMX makes, which depends on a layer's sizes alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...spec import Array, Spec
from ..cells import cell_of
from ..codegen.bundle import BUNDLE
from ..codegen.target import LINE, Target
from ..products.formats import format_of
from ..products.gemm import NR_BACK
from ..threads.partition import Part, Schedule, schedule

L2_BYTES = 1 << 21  # packed weights of more bytes do not stay in a core's own cache
L3_BYTES = 1 << 23  # recurrent weights of more bytes are not counted on to stay in any cache

# Forward: rows, steps, panels
ROWS_BYTES = 1 << 22  # scratch memory of a step of a block of rows, at most: each block reads all weights
ROWS_MULTIPLE = 24  # rows of a block: whole tiles of 6, 8 and 12
SLOT_BYTES = 1 << 18  # slots of a chunk of steps: about as much stays in cache
MOST_SLOT_BYTES = 1 << 22  # the same where W_x, read once a chunk, would be read too often
FEW_ROWS = 3  # rows for which a step takes all its panels at once or, where it projects its own x, a bundle
FEW_REDUCED_ROWS = 16  # rows of bf16 or int8 for which a step takes a bundle of panels at once
MANY_ROWS = 16  # rows that leave time to fetch weights ahead, where a core's own cache does not hold them
SLOT_GAP = 2 * LINE  # between slots that would else fall on the same lines of a cache
PAGE = 1 << 12  # bytes within which processors fetch ahead
COPIED_BYTES = range(1 << 17, (1 << 20) + 1)  # a W_h that threads copy: L1 holds a smaller one, and L2 part of a larger one
STREAMING_BYTES = 3 << 22  # saved gates of more bytes leave the caches before the backward pass reads them

# Backward
GROUPS = 4  # pieces of a phase that are meant for one thread
PRODUCT_ROWS = 192  # rows of d_gates that meet a panel of W_x before the next panel does
SCRATCH_BYTES = 1 << 20  # memory that a program keeps for what its steps leave for its products; more is of the pool
# multiply-adds of the large products from which on AMX makes a training step faster
AMX_WORK = 20_000_000
# rows and units of a step from which on AMX makes dh_prev: with fewer rows reading W_h takes the time, and its strips are half
# as large again; with fewer units, splitting the gates' gradients does
AMX_ROWS, AMX_UNITS = 16, 96

# Memory to use again
PACKING_BYTES = 1 << 20  # packed arrays of fewer bytes take one thread less time than several need to meet
PROGRAM_BYTES = 32 << 20  # programs of all layers that nobody runs
PACKED_BYTES = 256 << 20  # packed weights of all layers that nothing runs on any more
PACKERS = 256  # packers of all layers, counted one by one
ARRAY_BYTES = 256 << 20  # arrays of training calls: saved gates, gradients and results, as large as x, y and more
LEAST_KEPT = 1 << 12  # bytes, a page: less is not worth the keeping
LEAST_LEASED = 3 << 16  # bytes: an allocator has less at hand; for more it asks the system, page by page, each time
SPARE_CALLS = 3  # records of a stack that stay ready for callers at the same time


@dataclass(frozen=True)
class Blocking:
    """The blocks in which one share goes through its work."""

    rows: int  # rows of a block, which goes through all its steps before the next block does
    at_once: int  # panels that a step takes at once
    groups: int  # groups of so many panels, which threads claim in a step's first phase
    second_groups: int  # pieces of a step's second phase; 0: it has none


@dataclass(frozen=True)
class ForwardBlocking(Blocking):
    """The blocks in which one share of a forward pass goes through its work. Strides and sizes are in bytes."""

    chunk: int  # pairs (step, row) that have slots, and whose x is projected at once
    fused: bool  # each step projects its own x
    row_major: bool  # the slots of a row stand side by side, panel after panel
    prefetch: bool  # products fetch weights ahead
    copy_groups: int  # pieces in which x and y are copied
    slot_row: int  # from row to row
    slot_panel: int  # from panel to panel; 0: all panels have the same slots in turn
    slot_group: int  # from group to group; 0: groups have no slots of their own
    slots: int  # of all slots
    own_slots: bool  # no other thread uses the share's slots
    x_row: int  # of a gathered row of x
    converted_row: int  # of a converted row of state
    own_rows: bool  # the thread has the rows to itself, in memory of its own
    copied: bool  # where calls repeat, the thread reads a copy of W_h


def forward_blocking(
    spec: Spec, packed: Mapping[str, int], steps: int, batch: int, part: Part, machine: Target
) -> ForwardBlocking:
    """Decides all of a share's blocking. packed: bytes of the packed weights, by their names in a job.

    A thread that has rows to itself has them in memory of its own, a page from all else, and reads a copy of W_h where L2
    holds one. Two threads whose rows lie side by side, or that read one W_h from their caches, are slower than two processes:
    a core probably fetches ahead what another is about to write, and a line that two hold is slow to come back to one that
    lost it.
    """
    rows, team_size, vector = part.row_end - part.row_begin, part.team_size, machine.vector_bytes
    product, *second = cell_of(spec).products
    lanes, width = machine.lanes(spec.dtype.itemsize), product.panel
    own_rows = team_size == 1 and rows < batch
    gates = product.slot * vector  # bytes of a panel's gates in a slot
    panels = -(-spec.hidden_size // (lanes * width))
    mine = -(-panels // team_size)
    format, item = format_of(spec), spec.dtype.itemsize
    x_row = format.row_bytes(spec.input_size, item, vector)
    step = max(mine * width * gates, x_row)  # bytes of a row at one step
    block = rows_at_once(rows, step)
    few = rows <= FEW_ROWS
    row_major = few or (format.reduced and rows <= FEW_REDUCED_ROWS)
    x_depth = format.depth(spec.input_size)
    fused = _projects_its_own(spec, packed, steps, block, step, row_major)
    chunk = block if fused else max(block, min(rows * steps, _slots_at_once(step, x_depth) // block * block))
    at_once = 1 if not row_major else max(1, mine) if few and not fused else BUNDLE // width
    groups = -(-panels // at_once)
    # a step of two products leaves its slots from the first one for the second
    in_turn = fused and not row_major and not second
    held = 1 if in_turn else panels
    by_group = row_major and team_size > 1
    group = -(-chunk * (at_once * gates + SLOT_GAP) // PAGE) * PAGE + SLOT_GAP if by_group else 0
    return ForwardBlocking(
        rows=block,
        at_once=at_once,
        groups=groups,
        second_groups=groups if second else -(-spec.proj_size // (lanes * NR_BACK)),
        chunk=chunk,
        fused=fused,
        row_major=row_major,
        prefetch=rows >= MANY_ROWS and sum(packed.values()) > L2_BYTES,
        copy_groups=min(rows, 2 * team_size),
        slot_row=(at_once if by_group else held) * gates + SLOT_GAP if row_major else gates,
        slot_panel=gates if row_major else 0 if in_turn else chunk * gates,
        slot_group=group,
        slots=groups * group if by_group else chunk * (held * gates + SLOT_GAP),
        own_slots=in_turn or team_size == 1,
        x_row=x_row,
        converted_row=format.row_bytes(max(spec.output_size, spec.hidden_size), item, vector),
        own_rows=own_rows,
        copied=own_rows and part.row_begin > 0 and packed["w_h"] + packed.get("w_h_n", 0) in COPIED_BYTES,
    )


def backward_blocking(spec: Spec, part: Part, products: "Products", machine: Target) -> Blocking:
    """A step's panels come in groups, several a thread, so that one can help another, but of a bundle of vectors where there
    are so many. AMX splits the gates' gradients once for each group: then a thread has one."""
    vectors = -(-spec.hidden_size // machine.lanes(spec.dtype.itemsize))
    outputs = -(-spec.output_size // (machine.lanes(spec.dtype.itemsize) * NR_BACK))
    panels = -(-vectors // NR_BACK)
    at_once = -(-panels // part.team_size)
    if part.team_size > 1 and not products.recurrent:
        at_once = min(at_once, max(BUNDLE // NR_BACK, -(-at_once // GROUPS)))
    groups = -(-panels // at_once)
    return Blocking(
        rows=rows_at_once(part.row_end - part.row_begin, (vectors * spec.gates + 1) * machine.vector_bytes),
        at_once=at_once,
        groups=outputs if spec.proj_size else groups,
        second_groups=groups if spec.phases == 2 else 0,
    )


def rows_at_once(rows: int, row_bytes: int) -> int:
    """Gives the rows of a block: all blocks are about equal, and none takes more than ROWS_BYTES (if 24 rows do not)."""
    most = max(1, ROWS_BYTES // max(1, row_bytes) // ROWS_MULTIPLE) * ROWS_MULTIPLE
    return max(1, -(-rows // max(1, -(-rows // most))))


def streams(saved_bytes: int) -> bool:
    """Tells whether saved gates are written past the caches."""
    return saved_bytes > STREAMING_BYTES


def _slots_at_once(slot: int, inputs: int) -> int:
    """Gives the slots of a chunk, `slot` bytes each. Each chunk reads all of W_x: by slot that is inputs / slots times the
    bytes of a slot. Slots that do not stay in cache are read and written from further away."""
    fitting = SLOT_BYTES // slot
    return fitting if fitting >= inputs // 4 else max(fitting, min(inputs, MOST_SLOT_BYTES // slot))


def _projects_its_own(spec: Spec, packed: Mapping[str, int], steps: int, rows: int, slot: int, row_major: bool) -> bool:
    """Tells whether a step projects its own x. In a stream it begins with the panels whose weights are still in cache; in a
    sequence it does so if there are rows enough to read W_x for them, and slots would leave the cache before their step."""
    if steps == 1 and packed["w_h"] + packed.get("w_h_n", 0) <= L3_BYTES:
        return True
    x_depth = format_of(spec).depth(spec.input_size)
    return len(cell_of(spec).products) == 1 and not row_major and SLOT_BYTES // slot < 2 * rows and 2 * rows >= x_depth


class Products(NamedTuple):
    """The products of a layer's backward pass that AMX makes, rather than multiply-adds of vectors."""

    large: bool  # dW and dx, over all steps
    recurrent: bool  # dh_prev

    def __str__(self) -> str:
        names = ["dW", "dx"] * self.large + ["dh_prev"] * self.recurrent
        return f"AMX makes {', '.join(names)}" if names else "AMX makes nothing"


def choose(spec: Spec, steps: int, batch: int, machine: Target) -> Products:
    """Chooses the products that AMX makes. No choice depends on threads, and so the gradients' bits do not."""
    if not machine.amx or spec.dtype != np.float32:
        return Products(False, False)
    work = steps * batch * spec.gates * spec.hidden_size * (2 * spec.input_size + spec.output_size)
    large, many = work >= AMX_WORK, batch >= AMX_ROWS and spec.hidden_size >= AMX_UNITS
    return Products(large, large and many and (cell_of(spec).options_on_amx or not spec.has_options))


@dataclass(frozen=True)
class ForwardPlan:
    """The decisions about a forward pass before it runs; `str()` tells them in one line."""

    schedule: Schedule
    blockings: tuple[ForwardBlocking, ...]  # one a part of the schedule

    def __str__(self) -> str:
        return f"{self.schedule}; {_told(self.blockings)}"


def plan_forward(
    spec: Spec,
    packed: Mapping[str, int],
    directions: int,
    steps: int,
    batch: int,
    threads: int,
    machine: Target,
    lengths: Array | None = None,
) -> ForwardPlan:
    """Decides how a forward pass goes. lengths: of the rows, longest first."""
    shares = schedule(spec, directions, batch, threads, machine, cell_of(spec).products[0].panel, lengths, steps=steps)
    return ForwardPlan(shares, tuple(forward_blocking(spec, packed, steps, batch, part, machine) for part in shares.parts))


def _told(blockings: Sequence[ForwardBlocking]) -> str:
    """Puts the blockings of all shares into words."""
    rows, panels = _span((one.rows for one in blockings), "row"), _span((one.at_once for one in blockings), "panel")
    words = [f"{rows} and {panels} at once"]
    if not all(one.fused for one in blockings):
        words.append(f"x projected {_span((one.chunk for one in blockings if not one.fused), 'row')} at a time")
    flags = {
        "each step projects its own x": [one.fused for one in blockings],
        "row-major slots": [one.row_major for one in blockings],
        "weights prefetched": [one.prefetch for one in blockings],
    }
    words += [text if all(values) else f"{text} on some threads" for text, values in flags.items() if any(values)]
    copies = sum(one.copied for one in blockings)
    if copies:
        words.append(f"{copies} thread{'s' * (copies > 1)} with a copy of W_h in plain calls")
    return ", ".join(words)


def _span(values: Iterable[int], noun: str) -> str:
    """Gives a text like "24 rows", or "2 to 3 rows"."""
    found = {*values}
    low, high = min(found), max(found)
    return f"{low} {noun}{'s' * (low != 1)}" if low == high else f"{low} to {high} {noun}s"
