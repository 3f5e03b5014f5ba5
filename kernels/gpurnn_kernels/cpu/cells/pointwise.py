"""The pointwise part of a step, one vector of units of one row at a time: the equations of cells.py on SIMD vectors.

Each function is emitted as straight-line code where a kernel calls it: `lstm_unit(zero, (slot, h_out, ...))`. The type of
`zero` is the element type; every argument is a byte address, or

    left, count: units from this vector on (the last vector of a layer may hold fewer than it has lanes: user arrays are not
        read or written beyond them, and the padded lanes stay zero)
    row: what a row writes to, as `forward.py` lists it: y, saved, saved_c; unit, gates: bytes to add to them
    past: whether `saved` goes past the caches

slot: pre-activated gates, vector after vector, as the tiles leave them:
    LSTM f i o g, GRU z r (reset before; n lies in a slot of its own), GRU n_x z r q (reset after; q = W_hn h + b_hn)
saved: activated gates for the backward pass: f i o g | z r n | z r n q
"""

from llvmlite import ir

from ...cells import make_cells
from ..codegen.activations import ACTIVATIONS
from ..codegen.bundle import pointwise
from ..codegen.vector import INT64, Vector, Vectors

ROWS_AT_ONCE = 8  # of `copy_and_add_rows`: a total is loaded and stored once for them
CELLS = make_cells(ACTIVATIONS)
sigmoid, tanh = ACTIVATIONS.sigmoid, ACTIVATIONS.tanh


@pointwise
def copy_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """One vector from a user's array into a padded one, zeros past its units."""
    v.store(to, v.load_tail(source, count))


@pointwise
def store_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """One vector from a padded array into a user's, its NaN as `canonical` has them."""
    v.store_tail(to, v.canonical(v.load(source)), count)


@pointwise
def copy_element(v: Vectors, to: ir.Value, source: ir.Value) -> None:
    """One element."""
    kind = v.element.as_pointer()
    v.builder.store(v.builder.load(v.builder.inttoptr(source, kind)), v.builder.inttoptr(to, kind))


@pointwise
def copy_vector(v: Vectors, to: ir.Value, source: ir.Value) -> None:
    v.store(to, v.load(source))


@pointwise
def clear_vector(v: Vectors, to: ir.Value, _: ir.Value) -> None:
    v.store(to, v.zero())


@pointwise
def copy_and_add(v: Vectors, to: ir.Value, source: ir.Value, _: ir.Value, total: ir.Value) -> None:
    _copy_and_add(v, 1, to, source, INT64(0), total)


@pointwise
def copy_and_add_rows(v: Vectors, to: ir.Value, source: ir.Value, stride: ir.Value, total: ir.Value) -> None:
    _copy_and_add(v, ROWS_AT_ONCE, to, source, stride, total)


def _copy_and_add(v: Vectors, rows: int, to: ir.Value, source: ir.Value, stride: ir.Value, total: ir.Value) -> None:
    """Vectors `stride` bytes apart, side by side, and their sum."""
    found = v.load(total)
    for row in range(rows):
        value = v.load(v.builder.add(source, v.builder.mul(stride, INT64(row))))
        v.store(to, value, row)
        found = found + value
    v.store(total, found)


def _shared(v: Vectors, slot: ir.Value, gate: int, count: ir.Value) -> ir.Value:
    """The address of a gate of `count` units in vectors that the gates share."""
    return v.builder.add(slot, v.builder.mul(count, INT64(gate * v.itemsize)))


@pointwise
def lstm_spread(v: Vectors, slot: ir.Value, count: ir.Value) -> None:
    """f i o g that share vectors, into a vector each, zeros past the units."""
    gates = [v.load_first(_shared(v, slot, gate, count), count) for gate in range(4)]
    for gate, value in enumerate(gates):
        v.store(slot, value, gate)


@pointwise
def gru_after_part(v: Vectors, slot: ir.Value, b_n: ir.Value, count: ir.Value) -> None:
    """z r n_x that share vectors: n_x goes aside, and b_hn takes its place, to become q."""
    n_x = _shared(v, slot, 2, count)
    v.store(slot, v.load_first(n_x, count), 3)
    v.store_first(n_x, v.load(b_n), count)


@pointwise
def gru_after_spread(v: Vectors, slot: ir.Value, count: ir.Value) -> None:
    """z r q that share vectors, and n_x where `gru_after_part` left it: n_x z r q in a vector each."""
    gates = [v.load(slot, 3), *(v.load_first(_shared(v, slot, gate, count), count) for gate in range(3))]
    for place, value in enumerate(gates):
        v.store(slot, value, place)


def store_h(v: Vectors, h_out: ir.Value, h: Vector, row: ir.Value, unit: ir.Value, remaining: ir.Value) -> None:
    """Stores a step's h for the next one, and as y."""
    h = v.canonical(h)
    v.store(h_out, h)
    v.store_tail(v.pointer(row, 0, unit), h, remaining)


@pointwise
def lstm_unit(
    v: Vectors, slot: ir.Value, c: ir.Value, h_out: ir.Value, row: ir.Value, unit: ir.Value, remaining: ir.Value
) -> None:
    h, c_new = CELLS.lstm_cell(*(v.load(slot, gate) for gate in range(4)), v.load(c))
    v.store(c, c_new)
    store_h(v, h_out, h, row, unit, remaining)


@pointwise
def lstm_unit_keep(
    v: Vectors,
    slot: ir.Value,
    c: ir.Value,
    h_out: ir.Value,
    row: ir.Value,
    unit: ir.Value,
    remaining: ir.Value,
    gates: ir.Value,
    streaming: ir.Value,
) -> None:
    """`lstm_unit`, and what `lstm_unit_grad` reads; the compiler finds the exponentials that both need."""
    values = [v.load(slot, gate) for gate in range(4)]
    h, c_new = CELLS.lstm_cell(*values, v.load(c))
    v.store_kept(v.pointer(row, 1, gates), CELLS.lstm_gates(*values), streaming)
    v.store_kept(v.pointer(row, 2, unit), [c_new], streaming)
    v.store(c, c_new)
    store_h(v, h_out, h, row, unit, remaining)


@pointwise
def gru_reset_unit(v: Vectors, slot_r: ir.Value, h: ir.Value, rh: ir.Value) -> None:
    """Reset before, between the two products of a step: rh = r * h."""
    v.store(rh, CELLS.gru_reset(v.load(slot_r), v.load(h)))


@pointwise
def gru_reset_unit_keep(v: Vectors, slot_r: ir.Value, h: ir.Value, rh: ir.Value, row: ir.Value, gates: ir.Value) -> None:
    """`gru_reset_unit`, and r for `gru_reset_unit_grad`."""
    r = v.load(slot_r)
    v.store(rh, CELLS.gru_reset(r, v.load(h)))
    v.store(v.pointer(row, 1, gates), sigmoid(r), 1)


@pointwise
def gru_before_unit(
    v: Vectors,
    slot_z: ir.Value,
    slot_n: ir.Value,
    h: ir.Value,
    h_out: ir.Value,
    row: ir.Value,
    unit: ir.Value,
    remaining: ir.Value,
) -> None:
    h_new = CELLS.gru_update(v.load(slot_z), v.load(slot_n), v.load(h))
    store_h(v, h_out, h_new, row, unit, remaining)


@pointwise
def gru_before_unit_keep(
    v: Vectors,
    slot_z: ir.Value,
    slot_n: ir.Value,
    h: ir.Value,
    h_out: ir.Value,
    row: ir.Value,
    unit: ir.Value,
    remaining: ir.Value,
    gates: ir.Value,
) -> None:
    """`gru_before_unit`, and z and n for `gru_before_unit_grad`."""
    z, n = v.load(slot_z), v.load(slot_n)
    h_new = CELLS.gru_update(z, n, v.load(h))
    saved = v.pointer(row, 1, gates)
    v.store(saved, sigmoid(z), 0)
    v.store(saved, tanh(n), 2)
    store_h(v, h_out, h_new, row, unit, remaining)


@pointwise
def gru_after_unit(
    v: Vectors, slot: ir.Value, h: ir.Value, h_out: ir.Value, row: ir.Value, unit: ir.Value, remaining: ir.Value
) -> None:
    n_x, z, r, q = (v.load(slot, gate) for gate in range(4))
    h_new = CELLS.gru_update(z, CELLS.gru_candidate(r, q, n_x), v.load(h))
    store_h(v, h_out, h_new, row, unit, remaining)


@pointwise
def gru_after_unit_keep(
    v: Vectors,
    slot: ir.Value,
    h: ir.Value,
    h_out: ir.Value,
    row: ir.Value,
    unit: ir.Value,
    remaining: ir.Value,
    gates: ir.Value,
    streaming: ir.Value,
) -> None:
    """`gru_after_unit`, and what `gru_after_unit_grad` reads."""
    n_x, z, r, q = (v.load(slot, gate) for gate in range(4))
    n = CELLS.gru_candidate(r, q, n_x)
    h_new = CELLS.gru_update(z, n, v.load(h))
    v.store_kept(v.pointer(row, 1, gates), (sigmoid(z), sigmoid(r), tanh(n), q), streaming)
    store_h(v, h_out, h_new, row, unit, remaining)


@pointwise
def lstm_unit_grad(
    v: Vectors,
    saved: ir.Value,
    c_prev: ir.Value,
    c: ir.Value,
    dh: ir.Value,
    dc: ir.Value,
    step: ir.Value,
    gates: ir.Value,
) -> None:
    """dh holds the whole gradient of h and becomes the start of the sum for dh_prev; the gates' gradients go into `step`,
    which the recurrent product reads, and `gates`, which the weight gradients read."""
    f, i, o, g = (v.load(saved, gate) for gate in range(4))
    *d_gates, dc_prev = CELLS.lstm_cell_grad(f, i, o, g, v.load(c_prev), v.load(c), v.load(dh), v.load(dc))
    for gate, value in enumerate(d_gates):
        v.store(step, value, gate)
        v.store(gates, value, gate)
    v.store(dc, dc_prev)
    v.store(dh, v.zero())


@pointwise
def gru_after_unit_grad(
    v: Vectors,
    saved: ir.Value,
    h_prev: ir.Value,
    dh: ir.Value,
    step: ir.Value,
    gates: ir.Value,
    dq_out: ir.Value,
    count: ir.Value,
) -> None:
    """gates: dz_ dr_ dn_, what W_x saw; step: dz_ dr_ dq, what W_h saw; dq_out: dq."""
    z, r, n, q = (v.load(saved, gate) for gate in range(4))
    dz, dn, dh_prev = CELLS.gru_update_grad(z, n, v.load_tail(h_prev, count), v.load(dh))
    dr, dq = CELLS.gru_candidate_grad(r, q, dn)
    for gate, value in enumerate((dz, dr, dn)):
        v.store(gates, value, gate)
    for gate, value in enumerate((dz, dr, dq)):
        v.store(step, value, gate)
    v.store(dq_out, dq)
    v.store(dh, dh_prev)


@pointwise
def gru_before_unit_grad(
    v: Vectors,
    saved: ir.Value,
    h_prev: ir.Value,
    dh: ir.Value,
    step_zr: ir.Value,
    step_n: ir.Value,
    gates: ir.Value,
    drh: ir.Value,
    count: ir.Value,
) -> None:
    """First half: dz_ and dn_; drh starts at zero for the product W_hn^T dn_."""
    z, n = v.load(saved, 0), v.load(saved, 2)
    dz, dn, dh_prev = CELLS.gru_update_grad(z, n, v.load_tail(h_prev, count), v.load(dh))
    v.store(step_zr, dz, 0)
    v.store(step_n, dn)
    v.store(gates, dz, 0)
    v.store(gates, dn, 2)
    v.store(dh, dh_prev)
    v.store(drh, v.zero())


@pointwise
def gru_reset_unit_grad(
    v: Vectors,
    saved: ir.Value,
    h_prev: ir.Value,
    dh: ir.Value,
    step_zr: ir.Value,
    gates: ir.Value,
    drh: ir.Value,
    rh: ir.Value,
    count: ir.Value,
) -> None:
    """Second half: dr_, and rh = r * h_prev for the gradient of W_hn."""
    r = v.load(saved, 1)
    previous = v.load_tail(h_prev, count)
    dr, dh_prev = CELLS.gru_reset_grad(r, previous, v.load(drh))
    v.store(step_zr, dr, 1)
    v.store(gates, dr, 1)
    v.store(dh, v.load(dh) + dh_prev)
    v.store(rh, r * previous)


@pointwise
def add_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Adds one vector of a user's array into a padded one."""
    v.store(to, v.load(to) + v.load_tail(source, count))
