"""A step of the GRU with the reset before whose recurrent weights are more than a core's own cache has room for.

W_hz h is needed only at the end of a step. For a few rows it is a product of its own, before r and n in one step, after them
in the next one, so that W_hz is read twice in a row, and W_hr and W_hn in turn: of three equal parts, with room for two, half
are found in cache then. With z and r in one product it is a third.

A gate's vectors of a panel lie side by side, in the weights and in the slot: z z r r; z r of a last vector that is alone.
"""

from ...spec import Spec
from ..forward import V1, V2, V4
from ..inline import inlined
from ..pointwise import gru_before_unit, gru_before_unit_keep, gru_reset_unit, gru_reset_unit_keep
from ..target import OWN_CACHE, target
from ..tiles import multiply_in_turn
from .common import add, cells, slot_at, take, taken_from
from .gru_before import Form, Places, blocks_in, gru_before_candidate, gru_before_gates, make_step


def gates_apart(spec: Spec) -> bool:
    """Whether a layer's steps are these; its weights are packed for them, then."""
    weights = spec.gates * spec.hidden_size**2 * spec.dtype.itemsize
    return spec.variant == "gru_before" and target().wide(spec.hidden_size) == 2 and weights > OWN_CACHE


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


@inlined
def apart(work):  # type: ignore[no-untyped-def]
    return work.together and not work.fused


@inlined
def update_gate_before(job, work, rows, h, back, slot):  # type: ignore[no-untyped-def]
    panel = take(work, back) if apart(work) and not back else -1
    while panel >= 0:
        gru_before_gate(job, work, rows, h, back, slot, panel, blocks_in(job, panel, taken_from(work, panel)), 0)
        panel = take(work, back)


@inlined
def reset_gate(job, work, rows, h, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    if apart(work):
        gru_before_gate(job, work, rows, h, back, slot, panel, blocks, 1)
    else:
        gru_before_gates(job, work, rows, h, back, slot, panel, blocks)


@inlined
def candidate_and_update_gate(job, work, rows, h, rh, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    gru_before_candidate(job, work, rows, rh, back, slot, panel, blocks)
    if apart(work) and back:
        gru_before_gate(job, work, rows, h, back, slot, panel, blocks, 0)


_PLACES = Places(z_at, r_at)
_FORM = Form(update_gate_before, reset_gate, candidate_and_update_gate, pair_cells)
gru_before_apart_step = make_step(
    "gru_before_apart_step", (gru_reset_unit, _PLACES.reset), (gru_before_unit, _PLACES.update), _FORM
)
gru_before_apart_step_keep = make_step(
    "gru_before_apart_step_keep",
    (gru_reset_unit_keep, _PLACES.reset_kept),
    (gru_before_unit_keep, _PLACES.update_kept),
    _FORM,
)
