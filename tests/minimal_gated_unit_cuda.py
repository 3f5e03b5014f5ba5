# mypy: disable-error-code="no-untyped-def"
"""The minimal gated unit on CUDA, outside the package: what a cell of `minimal_gated_unit.py` needs there.

1. The pointwise kernels: plain functions of a record and a step t, of which a thread makes a few units of one row. What
   `variant.parts` gives are device functions over these units; `variant` has the flags, so that a form pays for no other.
2. The `Cell`: its loops over the steps, products and kernels in turn, and which gradients W_x and W_h saw.

Without persistent kernels and a kernel for a step, sequences and streams run step by step.
"""

from functools import cache
from typing import Any, NamedTuple

import pytest

from gpurnn_kernels.cuda.cells import CELLS
from gpurnn_kernels.cuda.cells.cell import Cell, Columns
from gpurnn_kernels.cuda.compiler import types
from gpurnn_kernels.cuda.host.device import Kernel
from gpurnn_kernels.cuda.intrinsics.lanes import along, at_row
from gpurnn_kernels.cuda.pointwise.form import RESIDENT_BACK, Variant
from gpurnn_kernels.cuda.pointwise.starts import starts
from gpurnn_kernels.cuda.records import Count, Lengths, Number, Step, Wide
from gpurnn_kernels.cuda.run import Run
from gpurnn_kernels.cuda.saved import SavedDirection
from gpurnn_kernels.cuda.stepwise.steps import Previous, Steps, output, ragged
from gpurnn_kernels.cuda.stepwise.steps_back import gate_arrays, output_gradient, previous_h

int32 = types.int32


class ResetForward(NamedTuple):
    gates: Wide  # (T, B, 2H): W_x x, f with W_h h
    gates_t: Count
    bias: Wide  # (2H,), `Weights.pointwise_b`
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    fh: Number  # (B, H), or with SAVED (T, B, H)
    fh_t: Count
    lengths: Lengths  # (B,), with RAGGED
    batch: Count


@cache
def reset_forward(variant: Variant) -> Kernel:
    """Between the two products of a step: f * h; zeros for rows past their length."""
    H, RAGGED = variant.units, variant.ragged
    place, inside, load, store, zeros, cells, _, of_sigma, _ = variant.parts
    gru_reset = cells.gru_reset

    def mgu_reset_step(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        if RAGGED and t >= a.lengths[row]:
            made = zeros()
        else:
            f_ = of_sigma(load(along(a.gates, t, a.gates_t), int32(row * (2 * H) + unit)), load(a.bias, unit))
            made = gru_reset(f_, load(at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row), unit))
        store(along(a.fh, t, a.fh_t), int32(row * H + unit), made)

    return variant.kernel("mgu_reset_forward", mgu_reset_step, ResetForward, variant.resident)


class UpdateForward(NamedTuple):
    gates: Wide  # (T, B, 2H): both products; with SAVED becomes f, n
    gates_t: Count
    bias: Wide  # (2H,), `Weights.pointwise_b`
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
def update_forward(variant: Variant) -> Kernel:
    """The end of a step: pre-activated f and n -> h. Rows past their length keep their state, and y is 0 there."""
    H, RAGGED, SAVED, LEAVES_H = variant.units, variant.ragged, variant.saved, variant.final or variant.ragged
    place, inside, load, store, zeros, cells, activations, of_sigma, add = variant.parts
    gru_update, sigmoid, tanh = cells.gru_update, activations.sigmoid, activations.tanh

    def mgu_update_step(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        at = int32(row * (2 * H) + unit)
        h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
        if RAGGED and t >= a.lengths[row]:
            h_new, y_new = load(h_prev, unit), zeros()
        else:
            gates = along(a.gates, t, a.gates_t)
            f_ = of_sigma(load(gates, at), load(a.bias, unit))
            n_ = add(load(gates, at + H), load(a.bias, unit + H))
            h_new = gru_update(f_, n_, load(h_prev, unit))
            y_new = h_new
            if SAVED:
                store(gates, at, sigmoid(f_))
                store(gates, at + H, tanh(n_))
        store(at_row(a.y, t, a.y_t, row, a.y_row), unit, y_new)
        if LEAVES_H:
            store(a.h_n, int32(row * H + unit), h_new)

    return variant.kernel("mgu_update_forward", mgu_update_step, UpdateForward, variant.resident)


class UpdateBackward(NamedTuple):
    gates: Wide  # (T, B, 2H): f, n
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
    d_gates: Number  # (T, B, 2H): f's part of the update, n
    d_gates_t: Count
    lengths: Lengths  # (B,), with RAGGED
    last: Step  # T - 1 of a reverse direction, else -1
    batch: Count


@cache
def update_backward(variant: Variant) -> Kernel:
    """The first half of a step of back-propagation: gradient of h -> of pre-activated n, and f's part of the update.

    Rows past their length give the gates zeros and keep the gradient of their state.
    """
    H, ITEM, RAGGED = variant.units, variant.storage // 8, variant.ragged
    place, inside, load, store, zeros, cells, _, _, add = variant.parts
    gru_update_grad = cells.gru_update_grad

    def mgu_update_step_back(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch):
            return
        own, at, d_gates = int32(row * H + unit), int32(row * (2 * H) + unit), along(a.d_gates, t, a.d_gates_t)
        if RAGGED and t >= a.lengths[row]:
            df = dn = zeros()
        else:
            gates = along(a.gates, t, a.gates_t)
            h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
            if RAGGED and starts(t, a.lengths[row], a.last):
                h_prev = along(a.h_0, row, H * ITEM)
            dh = add(load(at_row(a.dy, t, a.dy_t, row, a.dy_row), unit), load(a.dh, own))
            df, dn, rest = gru_update_grad(load(gates, at), load(gates, at + H), load(h_prev, unit), dh)
            store(a.dh, own, rest)
        store(d_gates, at, df)
        store(d_gates, at + H, dn)

    return variant.kernel("mgu_update_backward", mgu_update_step_back, UpdateBackward, RESIDENT_BACK)


class ResetBackward(NamedTuple):
    gates: Wide  # (T, B, 2H): f, n
    gates_t: Count
    h_prev: Number  # (B, H), or (T, B, H) of any strides
    h_prev_t: Count
    h_prev_row: Count
    to_previous: Step
    h_0: Number  # (B, H), with RAGGED
    d_fh: Wide  # (B, H): W_n^T dn
    dh: Wide  # (B, H), moves on; the product with W_f is added to it
    d_gates: Number  # (T, B, 2H): f, n; f's part of f * h is added
    d_gates_t: Count
    lengths: Lengths  # (B,), with RAGGED
    last: Step  # T - 1 of a reverse direction, else -1
    batch: Count


@cache
def reset_backward(variant: Variant) -> Kernel:
    """The second half of a step of back-propagation: gradient of f * h -> of pre-activated f, and of h before."""
    H, ITEM, RAGGED = variant.units, variant.storage // 8, variant.ragged
    place, inside, load, store, _, cells, _, _, add = variant.parts
    gru_reset_grad = cells.gru_reset_grad

    def mgu_reset_step_back(a, t):
        row, unit = place()
        if not inside(row, unit, a.batch) or (RAGGED and t >= a.lengths[row]):
            return
        own, at, d_gates = int32(row * H + unit), int32(row * (2 * H) + unit), along(a.d_gates, t, a.d_gates_t)
        h_prev = at_row(a.h_prev, t + a.to_previous, a.h_prev_t, row, a.h_prev_row)
        if RAGGED and starts(t, a.lengths[row], a.last):
            h_prev = along(a.h_0, row, H * ITEM)
        f = load(along(a.gates, t, a.gates_t), at)
        more, passed = gru_reset_grad(f, load(h_prev, unit), load(a.d_fh, own))
        store(d_gates, at, add(load(d_gates, at), more))
        store(a.dh, own, add(load(a.dh, own), passed))

    return variant.kernel("mgu_reset_backward", mgu_reset_step_back, ResetBackward, RESIDENT_BACK)


class MinimalGatedUnit(Cell):
    """The cell of the CUDA backend."""

    of_x = (Columns(range(2), range(2)),)
    of_h = range(1), range(1, 2)

    def forward(self, run: Run, gates: Any, initial: Any, y: Any, final: Any, saved: SavedDirection | None) -> None:
        (h_0,), (h_n,) = initial, final
        H, weights, variant = run.spec.hidden_size, run.weights, run.variant(y, h_0, h_n, saved=saved is not None)
        fh = run.empty(1, run.batch, H) if saved is None else saved.extra
        fh_t = 0 if saved is None else fh.strides[0]
        previous = Previous(run, h_0, y, h_n)
        common = {"gates": gates, "gates_t": gates.strides[0], "bias": weights.pointwise_b, **ragged(run)}

        def reset_arguments(first: bool) -> ResetForward:
            return ResetForward(**common, **previous.arguments(first), fh=fh, fh_t=fh_t)

        def update_arguments(first: bool) -> UpdateForward:
            return UpdateForward(**common, **previous.arguments(first), **output(y), h_n=h_n)

        reset = Steps(run, variant, reset_forward, reset_arguments, ends=True)
        update = Steps(run, variant, update_forward, update_arguments, ends=True)
        W_f, W_n = weights.W_h[:H], weights.W_h[H:]
        for t in run.order:
            run.multiply(previous.matrix(t), W_f, gates[t][:, :H], transpose_b=True, accumulate=True)
            reset(t)
            run.multiply(fh[0 if saved is None else t], W_n, gates[t][:, H:], transpose_b=True, accumulate=True)
            update(t)

    def backward(self, run: Run, saved: SavedDirection, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
        (gates, _), (h_0,), (dh,) = saved, initial, d_state
        H, variant = run.spec.hidden_size, run.variant(y, dy, h_0, dh, saved=True)
        d_fh = run.wide_empty(run.batch, H)
        common = {**gate_arrays(gates, d_gates), "dh": dh}

        def update_arguments(first: bool) -> UpdateBackward:
            return UpdateBackward(**common, **previous_h(run, h_0, y, first), **output_gradient(dy))

        def reset_arguments(first: bool) -> ResetBackward:
            return ResetBackward(**common, **previous_h(run, h_0, y, first), d_fh=d_fh)

        update = Steps(run, variant, update_backward, update_arguments)
        reset = Steps(run, variant, reset_backward, reset_arguments)
        W_f, W_n = run.weights.W_h[:H], run.weights.W_h[H:]
        for t in reversed(run.order):
            update(t)
            run.multiply(d_gates[t][:, H:], W_n, d_fh)
            reset(t)
            run.multiply(d_gates[t][:, :H], W_f, dh, accumulate=True)


def registered_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hands the cell in to the CUDA backend, beside `minimal_gated_unit.registered`."""
    monkeypatch.setitem(CELLS, "mgu", MinimalGatedUnit())
