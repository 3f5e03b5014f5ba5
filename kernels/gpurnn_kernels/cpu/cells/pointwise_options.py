"""The pointwise part of a step of the layers with peepholes, clip or a projection; as in pointwise.py.

`limit` is a vector of the clip, infinite without one. Pre-activations are what the backward pass reads, not activated gates:
the clip's gradient depends on what was clamped. saved: f_ i_ o_ g_ | z_ r_ n_ | z_ r_ n_ q
"""

from llvmlite import ir

from ...cells import make_cells, make_option_cells
from ..codegen.activations import ACTIVATIONS, CLIP
from ..codegen.bundle import pointwise
from ..codegen.vector import Vector, Vectors
from .pointwise import store_h

OPTION_CELLS = make_option_cells(make_cells(ACTIVATIONS), ACTIVATIONS, CLIP)


def _gates(v: Vectors, at: ir.Value, count: int = 4) -> list[Vector]:
    return [v.load(at, gate) for gate in range(count)]


def _lstm_unit(v: Vectors, slot: ir.Value, c: ir.Value, out: ir.Value, limit: ir.Value, peephole: ir.Value | None) -> None:
    weights = None if peephole is None else _gates(v, peephole, 3)
    h, c_new, *seen = OPTION_CELLS.lstm_options(*_gates(v, slot), v.load(c), v.load(limit), weights)
    v.store(c, c_new)
    v.store(out, h)
    if peephole is not None:
        for gate, value in enumerate(seen):
            v.store(slot, value, gate)


@pointwise
def lstm_options_unit(v: Vectors, slot: ir.Value, c: ir.Value, out: ir.Value, limit: ir.Value) -> None:
    """out: o * tanh(c)."""
    _lstm_unit(v, slot, c, out, limit, None)


@pointwise
def lstm_peephole_unit(v: Vectors, slot: ir.Value, c: ir.Value, out: ir.Value, limit: ir.Value, peephole: ir.Value) -> None:
    """The same with peepholes, p_f p_i p_o; the slot's gates become what they are with them."""
    _lstm_unit(v, slot, c, out, limit, peephole)


@pointwise
def copy_gates(v: Vectors, to: ir.Value, slot: ir.Value) -> None:
    """Four vectors."""
    for gate, value in enumerate(_gates(v, slot)):
        v.store(to, value, gate)


def _lstm_unit_grad(
    v: Vectors,
    saved: ir.Value,
    c_prev: ir.Value,
    c: ir.Value,
    dh: ir.Value,
    dc: ir.Value,
    step: ir.Value,
    gates: ir.Value,
    limit: ir.Value,
    peephole: ir.Value | None,
) -> None:
    weights = None if peephole is None else _gates(v, peephole, 3)
    inputs = [v.load(at) for at in (c_prev, c, dh, dc, limit)]
    *d_gates, dc_prev = OPTION_CELLS.lstm_options_grad(*_gates(v, saved), *inputs, weights)
    for gate, value in enumerate(d_gates):
        v.store(step, value, gate)
        v.store(gates, value, gate)
    v.store(dc, dc_prev)
    v.store(dh, v.zero())


@pointwise
def lstm_options_unit_grad(
    v: Vectors,
    saved: ir.Value,
    c_prev: ir.Value,
    c: ir.Value,
    dh: ir.Value,
    dc: ir.Value,
    step: ir.Value,
    gates: ir.Value,
    limit: ir.Value,
) -> None:
    """As `lstm_unit_grad`."""
    _lstm_unit_grad(v, saved, c_prev, c, dh, dc, step, gates, limit, None)


@pointwise
def lstm_peephole_unit_grad(
    v: Vectors,
    saved: ir.Value,
    c_prev: ir.Value,
    c: ir.Value,
    dh: ir.Value,
    dc: ir.Value,
    step: ir.Value,
    gates: ir.Value,
    limit: ir.Value,
    peephole: ir.Value,
) -> None:
    """The same with peepholes."""
    _lstm_unit_grad(v, saved, c_prev, c, dh, dc, step, gates, limit, peephole)


@pointwise
def add_product(v: Vectors, to: ir.Value, a: ir.Value, b: ir.Value, count: ir.Value) -> None:
    """Adds a * b, where b is a user's."""
    v.store(to, v.load(to) + v.load(a) * v.load_tail(b, count))


@pointwise
def gru_clip_reset_unit(v: Vectors, slot_r: ir.Value, h: ir.Value, rh: ir.Value, limit: ir.Value) -> None:
    v.store(rh, OPTION_CELLS.gru_clip_reset(v.load(slot_r), v.load(h), v.load(limit)))


@pointwise
def gru_before_clip_unit(
    v: Vectors,
    slot_z: ir.Value,
    slot_n: ir.Value,
    h: ir.Value,
    h_out: ir.Value,
    row: ir.Value,
    unit: ir.Value,
    remaining: ir.Value,
    limit: ir.Value,
) -> None:
    h_new = OPTION_CELLS.gru_clip_update(v.load(slot_z), v.load(slot_n), v.load(h), v.load(limit))
    store_h(v, h_out, h_new, row, unit, remaining)


@pointwise
def gru_before_clip_save(
    v: Vectors, slot_z: ir.Value, slot_r: ir.Value, slot_n: ir.Value, row: ir.Value, gates: ir.Value
) -> None:
    saved = v.pointer(row, 1, gates)
    for gate, slot in enumerate((slot_z, slot_r, slot_n)):
        v.store(saved, v.load(slot), gate)


@pointwise
def gru_after_clip_unit(
    v: Vectors,
    slot: ir.Value,
    h: ir.Value,
    h_out: ir.Value,
    row: ir.Value,
    unit: ir.Value,
    remaining: ir.Value,
    limit: ir.Value,
) -> None:
    """n_ takes the place of n_x."""
    n_x, z, r, q = _gates(v, slot)
    n = OPTION_CELLS.gru_clip_candidate(r, q, n_x, v.load(limit))
    h_new = OPTION_CELLS.gru_clip_update(z, n, v.load(h), v.load(limit))
    v.store(slot, n)
    store_h(v, h_out, h_new, row, unit, remaining)


@pointwise
def gru_after_clip_save(v: Vectors, slot: ir.Value, row: ir.Value, gates: ir.Value) -> None:
    """After `gru_after_clip_unit`."""
    saved = v.pointer(row, 1, gates)
    n, z, r, q = _gates(v, slot)
    for gate, value in enumerate((z, r, n, q)):
        v.store(saved, value, gate)


@pointwise
def gru_after_clip_unit_grad(
    v: Vectors,
    saved: ir.Value,
    h_prev: ir.Value,
    dh: ir.Value,
    step: ir.Value,
    gates: ir.Value,
    dq_out: ir.Value,
    count: ir.Value,
    limit_at: ir.Value,
) -> None:
    """As `gru_after_unit_grad`."""
    z, r, n, q = _gates(v, saved)
    limit = v.load(limit_at)
    dz, dn, dh_prev = OPTION_CELLS.gru_clip_update_grad(z, n, v.load_tail(h_prev, count), v.load(dh), limit)
    dr, dq = OPTION_CELLS.gru_clip_candidate_grad(r, q, dn, limit)
    for gate, value in enumerate((dz, dr, dn)):
        v.store(gates, value, gate)
    for gate, value in enumerate((dz, dr, dq)):
        v.store(step, value, gate)
    v.store(dq_out, dq)
    v.store(dh, dh_prev)


@pointwise
def gru_before_clip_unit_grad(
    v: Vectors,
    saved: ir.Value,
    h_prev: ir.Value,
    dh: ir.Value,
    step_zr: ir.Value,
    step_n: ir.Value,
    gates: ir.Value,
    drh: ir.Value,
    count: ir.Value,
    limit: ir.Value,
) -> None:
    """As `gru_before_unit_grad`."""
    z, n = v.load(saved, 0), v.load(saved, 2)
    dz, dn, dh_prev = OPTION_CELLS.gru_clip_update_grad(z, n, v.load_tail(h_prev, count), v.load(dh), v.load(limit))
    v.store(step_zr, dz, 0)
    v.store(step_n, dn)
    v.store(gates, dz, 0)
    v.store(gates, dn, 2)
    v.store(dh, dh_prev)
    v.store(drh, v.zero())


@pointwise
def gru_clip_reset_unit_grad(
    v: Vectors,
    saved: ir.Value,
    h_prev: ir.Value,
    dh: ir.Value,
    step_zr: ir.Value,
    gates: ir.Value,
    drh: ir.Value,
    rh: ir.Value,
    count: ir.Value,
    limit: ir.Value,
) -> None:
    """As `gru_reset_unit_grad`."""
    previous = v.load_tail(h_prev, count)
    dr, dh_prev, fed = OPTION_CELLS.gru_clip_reset_grad(v.load(saved, 1), previous, v.load(drh), v.load(limit))
    v.store(step_zr, dr, 1)
    v.store(gates, dr, 1)
    v.store(dh, v.load(dh) + dh_prev)
    v.store(rh, fed)
