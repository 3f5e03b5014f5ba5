# mypy: disable-error-code="no-untyped-def"
"""The pointwise parts of a reset-before GRU's step, two each way, one thread to a few units of a row.

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


class GruResetForward(NamedTuple):
    gates: Wide  # (T, B, 3H): W_x x, z and r with W_h h; with SAVED r becomes itself
    gates_t: Count
    bias: Wide  # (3H,), `Weights.pointwise_b`
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    rh: Number  # (B, H), or with SAVED (T, B, H)
    rh_t: Count
    lengths: Lengths  # (B,), with RAGGED
    batch: Count


@cache
def gru_reset_forward(variant: Variant) -> Kernel:
    """Between the two products of a step: r * h, what W_hn multiplies; zeros for rows past their length."""
    H, RAGGED, SAVED, R = variant.units, variant.ragged, variant.saved, variant.units
    place, inside, load, store, zeros, cells, activations, of_sigma, _ = variant.parts
    gru_reset, sigmoid = cells.gru_reset, activations.sigmoid

    def gru_reset_step(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        if RAGGED and t >= a.lengths[row]:
            made = zeros()
        else:
            gates, at_r = along(a.gates, t, a.gates_t), int32(row * (3 * H) + unit) + R
            r_ = of_sigma(load(gates, at_r), load(a.bias, unit + R))
            made = gru_reset(r_, load(at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row), unit))
            if SAVED:
                store(gates, at_r, sigmoid(r_))
        store(along(a.rh, t, a.rh_t) if SAVED else a.rh, int32(row * H + unit), made)

    return variant.kernel("gru_reset_forward", gru_reset_step, GruResetForward, variant.resident)


class GruBeforeForward(NamedTuple):
    gates: Wide  # (T, B, 3H): both products; with SAVED z and n become themselves
    gates_t: Count
    bias: Wide  # (3H,), `Weights.pointwise_b`
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    y: Number  # (T, B, H) of any strides
    y_t: Count
    y_row: Count
    h_n: Number  # (B, H), with LEAVES_H
    lengths: Lengths  # (B,), with RAGGED
    batch: Count


@cache
def gru_before_forward(variant: Variant) -> Kernel:
    """The end of a step: pre-activated z and n -> h. Rows past their length keep their state, and y is 0 there."""
    H, RAGGED, SAVED, LEAVES_H = variant.units, variant.ragged, variant.saved, variant.final or variant.ragged
    Z, N = 0, 2 * H  # where gates begin
    place, inside, load, store, zeros, cells, activations, of_sigma, add = variant.parts
    gru_update, sigmoid, tanh = cells.gru_update, activations.sigmoid, activations.tanh

    def gru_before_step(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        at = int32(row * (3 * H) + unit)
        h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
        if RAGGED and t >= a.lengths[row]:
            h_new, y_new = load(h_prev, unit), zeros()
        else:
            gates = along(a.gates, t, a.gates_t)
            z_ = of_sigma(load(gates, at + Z), load(a.bias, unit + Z))
            n_ = add(load(gates, at + N), load(a.bias, unit + N))
            h_new = gru_update(z_, n_, load(h_prev, unit))
            y_new = h_new
            if SAVED:
                store(gates, at + Z, sigmoid(z_))
                store(gates, at + N, tanh(n_))
        store(at_row(a.y, t, a.y_t, row, a.y_row), unit, y_new)
        if LEAVES_H:
            store(a.h_n, int32(row * H + unit), h_new)

    return variant.kernel("gru_before_forward", gru_before_step, GruBeforeForward, variant.resident)


class GruBeforeBackward(NamedTuple):
    gates: Wide  # (T, B, 3H): z, r, n
    gates_t: Count
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    h_0: Number  # (B, H), with RAGGED
    dy: Number  # (T, B, H) of any strides
    dy_t: Count
    dy_row: Count
    dh: Wide  # (B, H), without dy; left with the part that passes no gate
    d_gates: Number  # (T, B, 3H): z, r, n
    d_gates_t: Count
    lengths: Lengths  # (B,), with RAGGED
    last: Step  # T - 1 of a reverse direction, else -1
    batch: Count


@cache
def gru_before_backward(variant: Variant) -> Kernel:
    """The first half of a step of back-propagation: gradient of h -> of pre-activated z and n, and the part of h before that
    passes neither. Rows past their length give the gates zeros and keep the gradient of their state."""
    H, ITEM, RAGGED = variant.units, variant.storage // 8, variant.ragged
    Z, N = 0, 2 * H
    place, inside, load, store, zeros, cells, _, _, add = variant.parts
    gru_update_grad = cells.gru_update_grad

    def gru_before_step_back(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        own, at, d_gates = int32(row * H + unit), int32(row * (3 * H) + unit), along(a.d_gates, t, a.d_gates_t)
        if RAGGED and t >= a.lengths[row]:
            store(d_gates, at + Z, zeros())
            store(d_gates, at + N, zeros())
            return
        gates = along(a.gates, t, a.gates_t)
        h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
        if RAGGED and starts(t, a.lengths[row], a.last):
            h_prev = along(a.h_0, row, H * ITEM)
        dh = add(load(at_row(a.dy, t, a.dy_t, row, a.dy_row), unit), load(a.dh, own))
        dz, dn, rest = gru_update_grad(load(gates, at + Z), load(gates, at + N), load(h_prev, unit), dh)
        store(d_gates, at + Z, dz)
        store(d_gates, at + N, dn)
        store(a.dh, own, rest)

    return variant.kernel("gru_before_backward", gru_before_step_back, GruBeforeBackward, RESIDENT_BACK)


class GruResetBackward(NamedTuple):
    gates: Wide  # (T, B, 3H): z, r, n
    gates_t: Count
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    h_0: Number  # (B, H), with RAGGED
    d_rh: Wide  # (B, H): W_hn^T dn
    dh: Wide  # (B, H), moves on; the product with W_z and W_r is added to it
    d_gates: Number  # (T, B, 3H): z, r, n
    d_gates_t: Count
    lengths: Lengths  # (B,), with RAGGED
    last: Step  # T - 1 of a reverse direction, else -1
    batch: Count


@cache
def gru_reset_backward(variant: Variant) -> Kernel:
    """The second half of a step of back-propagation: gradient of r * h -> of pre-activated r, and of h before."""
    H, ITEM, RAGGED, R = variant.units, variant.storage // 8, variant.ragged, variant.units
    place, inside, load, store, zeros, cells, _, _, add = variant.parts
    gru_reset_grad = cells.gru_reset_grad

    def gru_reset_step_back(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        own, at_r = int32(row * H + unit), int32(row * (3 * H) + unit) + R
        if RAGGED and t >= a.lengths[row]:
            store(along(a.d_gates, t, a.d_gates_t), at_r, zeros())
            return
        h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
        if RAGGED and starts(t, a.lengths[row], a.last):
            h_prev = along(a.h_0, row, H * ITEM)
        r = load(along(a.gates, t, a.gates_t), at_r)
        dr, passed = gru_reset_grad(r, load(h_prev, unit), load(a.d_rh, own))
        store(along(a.d_gates, t, a.d_gates_t), at_r, dr)
        store(a.dh, own, add(load(a.dh, own), passed))

    return variant.kernel("gru_reset_backward", gru_reset_step_back, GruResetBackward, RESIDENT_BACK)
