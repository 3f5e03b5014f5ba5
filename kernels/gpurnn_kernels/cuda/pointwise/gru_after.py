# mypy: disable-error-code="no-untyped-def"
"""The pointwise part of a reset-after GRU's step, one thread to a few units of a row.

h before is read from an array (T, B, H) or (B, H): `h_prev`, its strides of steps and rows, and `to_previous`, how far the
step before is from t. In the backward pass of ragged batches a row's first step reads it from h_0, since y is 0 past a length.
"""

from functools import cache
from typing import NamedTuple

from ..compiler import types
from ..host.device import Kernel
from ..intrinsics.lanes import along, at_row
from ..records import Count, Lengths, Number, Step, Wide
from .form import RESIDENT_BACK, Variant
from .starts import starts

int32 = types.int32


class GruAfterForward(NamedTuple):
    gates: Wide  # (T, B, 3H): W_x x; with SAVED becomes z, r, n
    gates_t: Count
    products: Wide  # (B, 3H): W_h h
    bias: Wide  # (3H,), `Weights.pointwise_b`
    b_hn: Wide  # (H,)
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    q: Wide  # (T, B, H), with SAVED: W_hn h + b_hn
    q_t: Count
    y: Number  # (T, B, H) of any strides
    y_t: Count
    y_row: Count
    h_n: Number  # (B, H), with LEAVES_H
    lengths: Lengths  # (B,), with RAGGED
    batch: Count


@cache
def gru_after_forward(variant: Variant) -> Kernel:
    """A step: both products -> h. Rows past their length keep their state, and y is 0 there."""
    H, RAGGED, SAVED, LEAVES_H = variant.units, variant.ragged, variant.saved, variant.final or variant.ragged
    Z, R, N = 0, H, 2 * H  # where gates begin
    place, inside, load, store, zeros, cells, activations, of_sigma, add = variant.parts
    gru_candidate, gru_update = cells.gru_candidate, cells.gru_update
    sigmoid, tanh = activations.sigmoid, activations.tanh

    def gru_after_step(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        own, at = int32(row * H + unit), int32(row * (3 * H) + unit)
        gates, products, bias = along(a.gates, t, a.gates_t), a.products, a.bias
        if RAGGED and t >= a.lengths[row]:
            h_new, y_new = load(at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row), unit), zeros()
        else:
            z_ = of_sigma(load(gates, at + Z), load(products, at + Z), load(bias, unit + Z))
            r_ = of_sigma(load(gates, at + R), load(products, at + R), load(bias, unit + R))
            q = add(load(products, at + N), load(a.b_hn, unit))
            n_x = add(load(gates, at + N), load(bias, unit + N))
            n_ = gru_candidate(r_, q, n_x)
            h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
            h_new = gru_update(z_, n_, load(h_prev, unit))
            y_new = h_new
            if SAVED:
                store(gates, at + Z, sigmoid(z_))
                store(gates, at + R, sigmoid(r_))
                store(gates, at + N, tanh(n_))
                store(along(a.q, t, a.q_t), own, q)
        store(at_row(a.y, t, a.y_t, row, a.y_row), unit, y_new)
        if LEAVES_H:
            store(a.h_n, own, h_new)

    return variant.kernel("gru_after_forward", gru_after_step, GruAfterForward, variant.resident_doubles)


class GruAfterBackward(NamedTuple):
    gates: Wide  # (T, B, 3H): z, r, n
    gates_t: Count
    q: Wide  # (T, B, H)
    q_t: Count
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    h_0: Number  # (B, H), with RAGGED
    dy: Number  # (T, B, H) of any strides
    dy_t: Count
    dy_row: Count
    dh: Wide  # (B, H), without dy; left with the part that passes no gate, for a product to be added to
    d_gates: Number  # (T, B, 4H): z, r, q, n
    d_gates_t: Count
    lengths: Lengths  # (B,), with RAGGED
    last: Step  # T - 1 of a reverse direction, else -1
    batch: Count


@cache
def gru_after_backward(variant: Variant) -> Kernel:
    """A step of back-propagation: gradient of h -> of the pre-activated gates and q, and the part that passes no gate.

    Rows past their length give the gates zeros and keep the gradient of their state.
    """
    H, ITEM, RAGGED = variant.units, variant.storage // 8, variant.ragged
    Z, R, N = 0, H, 2 * H
    place, inside, load, store, zeros, cells, _, _, add = variant.parts
    gru_update_grad, gru_candidate_grad = cells.gru_update_grad, cells.gru_candidate_grad

    def gru_after_step_back(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        own, at = int32(row * H + unit), int32(row * (3 * H) + unit)
        if RAGGED and t >= a.lengths[row]:
            dz = dr = dq = dn = zeros()
        else:
            gates = along(a.gates, t, a.gates_t)
            h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
            if RAGGED and starts(t, a.lengths[row], a.last):
                h_prev = along(a.h_0, row, H * ITEM)
            dh = add(load(at_row(a.dy, t, a.dy_t, row, a.dy_row), unit), load(a.dh, own))
            dz, dn, rest = gru_update_grad(load(gates, at + Z), load(gates, at + N), load(h_prev, unit), dh)
            dr, dq = gru_candidate_grad(load(gates, at + R), load(along(a.q, t, a.q_t), own), dn)
            store(a.dh, own, rest)
        d_gates, d_at = along(a.d_gates, t, a.d_gates_t), int32(row * (4 * H) + unit)
        store(d_gates, d_at, dz)
        store(d_gates, d_at + H, dr)
        store(d_gates, d_at + 2 * H, dq)
        store(d_gates, d_at + 3 * H, dn)

    return variant.kernel("gru_after_backward", gru_after_step_back, GruAfterBackward, RESIDENT_BACK)
