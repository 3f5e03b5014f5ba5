# mypy: disable-error-code="no-untyped-def"
"""The pointwise part of an LSTM's step, one thread to a few units of a row."""

from functools import cache
from typing import NamedTuple

from ..compiler import types
from ..host.device import Kernel
from ..intrinsics.lanes import along, at_row
from ..records import Count, Lengths, Number, Step, Wide
from .form import RESIDENT_BACK, Variant

int32 = types.int32


class LstmForward(NamedTuple):
    gates: Wide  # (T, B, 4H): W_x x + W_h h; with SAVED becomes f, i, o, g
    gates_t: Count
    bias: Wide  # (4H,), `Weights.pointwise_b`
    c_prev: Wide  # (B, H), or with SAVED (T, B, H), and the step before is t + to_previous
    c_prev_t: Count
    to_previous: Step
    c: Wide  # (B, H), or with SAVED (T, B, H)
    c_t: Count
    y: Number  # (T, B, H) of any strides
    y_t: Count
    y_row: Count
    h_prev: Number  # (B, H), with RAGGED
    h_n: Number  # (B, H), with LEAVES_H
    c_n: Number  # (B, H), with LEAVES_C
    lengths: Lengths  # (B,), with RAGGED
    batch: Count


@cache
def lstm_forward(variant: Variant) -> Kernel:
    """A step: pre-activated gates -> c, h. Rows past their length keep their state, and y is 0 there."""
    H, RAGGED, SAVED = variant.units, variant.ragged, variant.saved
    LEAVES_H, LEAVES_C = variant.final or RAGGED, variant.final and (SAVED or variant.storage == 16)
    F, I, O, G = 0, H, 2 * H, 3 * H  # where gates begin
    place, inside, load, store, zeros, cells, _, of_sigma, add = variant.parts
    lstm_cell, lstm_gates = cells.lstm_cell, cells.lstm_gates

    def lstm_step(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        own, at = int32(row * H + unit), int32(row * (4 * H) + unit)
        gates, c_prev, c = along(a.gates, t, a.gates_t), a.c_prev, a.c
        if SAVED:
            c_prev, c = along(c_prev, t + a.to_previous, a.c_prev_t), along(c, t, a.c_t)
        if RAGGED and t >= a.lengths[row]:
            h_new, c_new, y_new = load(a.h_prev, own), load(c_prev, own), zeros()
        else:
            f_ = of_sigma(load(gates, at + F), load(a.bias, unit + F))
            i_ = of_sigma(load(gates, at + I), load(a.bias, unit + I))
            o_ = of_sigma(load(gates, at + O), load(a.bias, unit + O))
            g_ = add(load(gates, at + G), load(a.bias, unit + G))
            h_new, c_new = lstm_cell(f_, i_, o_, g_, load(c_prev, own))
            y_new = h_new
            if SAVED:
                f, i, o, g = lstm_gates(f_, i_, o_, g_)
                store(gates, at + F, f)
                store(gates, at + I, i)
                store(gates, at + O, o)
                store(gates, at + G, g)
        store(c, own, c_new)
        store(at_row(a.y, t, a.y_t, row, a.y_row), unit, y_new)
        if LEAVES_H:
            store(a.h_n, own, h_new)
        if LEAVES_C:
            store(a.c_n, own, c_new)

    return variant.kernel("lstm_forward", lstm_step, LstmForward, variant.resident_doubles)


class LstmBackward(NamedTuple):
    gates: Wide  # (T, B, 4H): f, i, o, g
    gates_t: Count
    c_prev: Wide  # (T, B, H) or (B, H); the step before is t + to_previous
    c_prev_t: Count
    to_previous: Step
    c: Wide  # (T, B, H)
    c_t: Count
    dy: Number  # (T, B, H) of any strides
    dy_t: Count
    dy_row: Count
    dh: Wide  # (B, H), without dy; with RAGGED left at zero, for a product to be added to
    dc: Wide  # (B, H), moves on
    d_gates: Number  # (T, B, 4H): f, i, o, g
    d_gates_t: Count
    lengths: Lengths  # (B,), with RAGGED
    batch: Count


@cache
def lstm_backward(variant: Variant) -> Kernel:
    """A step of back-propagation: gradients of h and c -> of the pre-activated gates, and of c before.

    Rows past their length give the gates zeros and keep the gradients of their state.
    """
    H, RAGGED = variant.units, variant.ragged
    F, I, O, G = 0, H, 2 * H, 3 * H
    place, inside, load, store, zeros, cells, _, _, add = variant.parts
    lstm_cell_grad = cells.lstm_cell_grad

    def lstm_step_back(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        own, at = int32(row * H + unit), int32(row * (4 * H) + unit)
        if RAGGED and t >= a.lengths[row]:
            df = di = do = dg = zeros()
        else:
            gates = along(a.gates, t, a.gates_t)
            c_prev, c = along(a.c_prev, t + a.to_previous, a.c_prev_t), along(a.c, t, a.c_t)
            f, i, o, g = load(gates, at + F), load(gates, at + I), load(gates, at + O), load(gates, at + G)
            dh = add(load(at_row(a.dy, t, a.dy_t, row, a.dy_row), unit), load(a.dh, own))
            df, di, do, dg, dc_prev = lstm_cell_grad(f, i, o, g, load(c_prev, own), load(c, own), dh, load(a.dc, own))
            store(a.dc, own, dc_prev)
            if RAGGED:
                store(a.dh, own, zeros())
        d_gates = along(a.d_gates, t, a.d_gates_t)
        store(d_gates, at + F, df)
        store(d_gates, at + I, di)
        store(d_gates, at + O, do)
        store(d_gates, at + G, dg)

    return variant.kernel("lstm_backward", lstm_step_back, LstmBackward, RESIDENT_BACK)
