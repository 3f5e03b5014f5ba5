"""A step of the GRU with the reset before whose recurrent weights are more than a core's own cache has room for.

W_hz h is needed only at the end of a step. For a few rows it is a product of its own, before r and n in one step, after them
in the next one, so that W_hz is read twice in a row, and W_hr and W_hn in turn: of three equal parts, with room for two, half
are found in cache then. With z and r in one product it is a third.

Steps that project their own x read W_x and W_h of a gate together, in the same order; W_xn, with z before r, so that W_xr and
W_hr are the last ones read but for W_hn, and found by the next step, which begins with them.

A gate's vectors of a panel lie side by side, in the weights and in the slot: z z r r; z r of a last vector that is alone.
"""

from ...spec import Spec
from ..codegen.inline import inlined
from ..codegen.target import OWN_CACHE, target
from ..passes.forward import V1, V2, V4
from ..products.microkernel import multiply, multiply_in_turn
from .common import cells, slot_at, taken_from
from .gru_before import Form, Places, begin_candidate, blocks_in, gates_together, gru_before_candidate, make_step
from .pointwise import gru_before_unit, gru_before_unit_keep, gru_reset_unit, gru_reset_unit_keep

_PIECE = 2  # panels: fewer rows than a tile has take two at once


def gates_apart(spec: Spec) -> bool:
    """Whether a layer's steps are these; its weights are packed for them, then."""
    weights = spec.gates * spec.hidden_size**2 * spec.dtype.itemsize
    return spec.variant == "gru_before" and target().wide(spec.hidden_size) == 2 and weights > OWN_CACHE


@inlined
def multiply_gate(job, work, rows, a, a_row, depth, w, init, init_row, back, slot, panel, blocks, gate):  # type: ignore[no-untyped-def]
    """init + w a of z (0) or r (1), into the slots of one step; of a last vector that is alone, both with r."""
    pairs, step, row, out = blocks // 2, depth * V4, work.slot_row, slot_at(work, panel, slot)
    one, first, to = w + gate * depth * V2, init + gate * V2, out + gate * V2
    multiply_in_turn(job, 2, rows, a, a_row, pairs, one, step, depth, first, init_row, V4, to, row, V4, back)
    if gate and blocks & 1:
        w, init, out = w + pairs * step, init + pairs * V4, out + pairs * V4
        multiply(job, 2, rows, a, a_row, 1, w, 0, depth, init, init_row, 0, out, row, 0)


@inlined
def make_gate(job, work, rows, h, back, slot, panel, blocks, gate):  # type: ignore[no-untyped-def]
    """Adds W_hz h (0) or W_hr h (1) to the slots of one step; where it projects its own x, after W_x x + b of the gate."""
    if work.fused:
        w_x, b = job.w_x + panel * job.I * V4, job.b + panel * V4
        multiply_gate(job, work, rows, work.x, work.x_row, job.I, w_x, b, 0, back, slot, panel, blocks, gate)
    w_h, at = job.w_h + panel * job.H * V4, slot_at(work, panel, slot)
    multiply_gate(job, work, rows, h, job.row, job.H, w_h, at, work.slot_row, back, slot, panel, blocks, gate)


@inlined
def make_z(job, work, rows, h, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    make_gate(job, work, rows, h, back, slot, panel, blocks, 0)


@inlined
def make_r(job, work, rows, h, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    make_gate(job, work, rows, h, back, slot, panel, blocks, 1)


@inlined
def begin_n(job, work, rows, x, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    begin_candidate(job, work, x, work.x_row, rows, panel, blocks, back)


@inlined
def make_n(job, work, rows, rh, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    """Adds W_hn (r * h), alike; steps that go forth have made W_xn x + b_n with z."""
    if work.fused and back:
        begin_n(job, work, rows, work.x, back, slot, panel, blocks)
    gru_before_candidate(job, work, rows, rh, back, slot, panel, blocks)


@inlined
def in_turn(make, job, work, rows, a, back, slot, panel, count):  # type: ignore[no-untyped-def]
    """`make` of `count` panels; by pieces where it reads W_x and W_h, so that what is read last of both is read first by the
    next step."""
    piece = _PIECE if work.fused else count
    done = 0
    while done < count:
        some = min(piece, count - done)
        at = panel + (count - done - some if back else done)
        make(job, work, rows, a, back, slot, at, blocks_in(job, at, some))
        done += some


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
def update_gate_before(job, work, rows, h, back, slot, panel, count):  # type: ignore[no-untyped-def]
    if work.together and not back:
        in_turn(make_z, job, work, rows, h, back, slot, panel, count)
        if work.fused:
            in_turn(begin_n, job, work, rows, work.x, back, slot, panel, count)


@inlined
def reset_gate(job, work, rows, h, back, slot, panel, count):  # type: ignore[no-untyped-def]
    if work.together:
        in_turn(make_r, job, work, rows, h, back, slot, panel, count)
    else:
        gates_together(job, work, rows, h, back, slot, panel, count)


@inlined
def candidate_and_update_gate(job, work, rows, h, rh, back, slot, panel, blocks):  # type: ignore[no-untyped-def]
    if work.together:
        count = taken_from(work, panel)
        in_turn(make_n, job, work, rows, rh, back, slot, panel, count)
        if back:
            in_turn(make_z, job, work, rows, h, back, slot, panel, count)
    else:
        gru_before_candidate(job, work, rows, rh, back, slot, panel, blocks)


_PLACES = Places(z_at, r_at)
_FORM = Form(update_gate_before, reset_gate, candidate_and_update_gate, pair_cells)
gru_before_apart_step, gru_before_apart_second = make_step(
    "gru_before_apart_step", (gru_reset_unit, _PLACES.reset), (gru_before_unit, _PLACES.update), _FORM
)
gru_before_apart_step_keep, gru_before_apart_second_keep = make_step(
    "gru_before_apart_step_keep",
    (gru_reset_unit_keep, _PLACES.reset_kept),
    (gru_before_unit_keep, _PLACES.update_kept),
    _FORM,
)
