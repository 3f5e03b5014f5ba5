"""A step of the GRU with the reset before whose recurrent weights are more than a core's own cache has room for.

W_hz h is needed only at the end of a step. For a few rows it is a product of its own, before r and n in one step, after them
in the next one, so that W_hz is read twice in a row, and W_hr and W_hn in turn: of three equal parts, with room for two, half
are found in cache then. With z and r in one product it is a third.

A gate's vectors of a panel lie side by side, in the weights and in the slot: z z r r; z r of a last vector that is alone.
"""

from typing import Any

from ...spec import Spec
from ..barrier import meet
from ..forward import V1, V2, V4
from ..inline import inlined, named
from ..memory import record
from ..pointwise import gru_before_unit, gru_before_unit_keep, gru_reset_unit, gru_reset_unit_keep
from ..target import target
from ..tiles import multiply_in_turn
from .common import add, cells, goes_back, slot_at, take, taken_from
from .gru_before import Places, blocks_in, gru_before_begin, gru_before_candidate, gru_before_gates

_NEAR_BYTES = 1 << 21  # of recurrent weights: more do not stay in a core's own cache


def gates_apart(spec: Spec) -> bool:
    """Whether a layer's steps are these; its weights are packed for them, then."""
    weights = spec.gates * spec.hidden_size**2 * spec.dtype.itemsize
    return spec.variant == "gru_before" and target().wide(spec.hidden_size) == 2 and weights > _NEAR_BYTES


@inlined
def gru_before_gate(job, work, rows, h, back, slot, panel, blocks, gate):  # type: ignore[no-untyped-def]
    """Adds W_hz h (0) or W_hr h (1) to the slots of one step; of a last vector that is alone, both with W_hr h."""
    pairs, step, row = blocks // 2, job.H * V4, work.slot_row
    w, at = job.w_h + panel * step, slot_at(work, panel, slot)
    one, out = w + gate * job.H * V2, at + gate * V2
    multiply_in_turn(job, 2, rows, h, job.row, pairs, one, step, job.H, out, row, V4, out, row, V4, back)
    if gate and blocks & 1:
        add(job, 2, rows, h, job.row, 1, w + pairs * step, job.H, at + pairs * V4, row, 0, 0)


@inlined
def z_at(job, work, block, slot):  # type: ignore[no-untyped-def]
    return slot_at(work, block // 2, slot) + (block & 1) * V1


@inlined
def r_at(job, work, block, slot):  # type: ignore[no-untyped-def]
    alone = not block & 1 and (block + 1) * job.lanes >= job.H
    return z_at(job, work, block, slot) + (V1 if alone else V2)


@inlined
def pair_cells(unit, place, job, work, first, rows, s, slot, panel, blocks):  # type: ignore[no-untyped-def]
    """As `cells`; of a few rows, first vectors of pairs, then second ones, then one that is alone: each evenly spaced."""
    together = work.together
    for part in range(3 if together else 1):
        block, count = 2 * panel + part, blocks
        if part == 2:
            block, count = 2 * panel + blocks - 1, blocks & 1
        elif together:
            count = blocks // 2
        cells(unit, place, job, work, first, rows, s, slot, block, count, 2)


def _make_step(name: str, reset: tuple[Any, Any], update: tuple[Any, Any]) -> Any:
    """reset, update: a unit and its places."""
    reset_unit, reset_places = reset
    update_unit, update_places = update

    def step(job, work, first, rows, s, slot):  # type: ignore[no-untyped-def]
        job, work = record(job), record(work)
        h = job.h + (s & 1) * job.h_plane + first * job.row
        rh = job.rh + first * job.row
        back = goes_back(work, s)
        apart = work.together and not work.fused
        panel = take(work, back) if apart and not back else -1
        while panel >= 0:
            gru_before_gate(job, work, rows, h, back, slot, panel, blocks_in(job, panel, taken_from(work, panel)), 0)
            panel = take(work, back)
        panel = take(work, back)
        while panel >= 0:
            count = taken_from(work, panel)
            blocks = blocks_in(job, panel, count)
            if work.fused:
                gru_before_begin(job, work, work.x, work.x_row, rows, panel, count, back)
            if apart:
                gru_before_gate(job, work, rows, h, back, slot, panel, blocks, 1)
            else:
                gru_before_gates(job, work, rows, h, back, slot, panel, blocks)
            pair_cells(reset_unit, reset_places, job, work, first, rows, s, slot, panel, blocks)
            panel = take(work, back)
        meet(work)
        panel = take(work, back)
        while panel >= 0:
            blocks = blocks_in(job, panel, taken_from(work, panel))
            gru_before_candidate(job, work, rows, rh, back, slot, panel, blocks)
            if apart and back:
                gru_before_gate(job, work, rows, h, back, slot, panel, blocks, 0)
            pair_cells(update_unit, update_places, job, work, first, rows, s, slot, panel, blocks)
            panel = take(work, back)

    return named(name, step)


_PLACES = Places(z_at, r_at)
gru_before_apart_step = _make_step("gru_before_apart_step", (gru_reset_unit, _PLACES.reset), (gru_before_unit, _PLACES.update))
gru_before_apart_step_keep = _make_step(
    "gru_before_apart_step_keep", (gru_reset_unit_keep, _PLACES.reset_kept), (gru_before_unit_keep, _PLACES.update_kept)
)
