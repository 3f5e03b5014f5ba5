"""The GRU with the reset before: two products and two pointwise kernels a step."""

from typing import Any

from ..pointwise.gru_before import (
    GruBeforeBackward,
    GruBeforeForward,
    GruResetBackward,
    GruResetForward,
    gru_before_backward,
    gru_before_forward,
    gru_reset_backward,
    gru_reset_forward,
)
from ..run import Run
from ..saved import SavedDirection
from ..step.kernel import OneKernel, gru_before_end
from ..stepwise.steps import Previous, Steps, output, ragged
from ..stepwise.steps_back import gate_arrays, output_gradient, previous_h
from .cell import Cell, Columns


class GRUBeforeCell(Cell):
    of_x = (Columns(range(3), range(3)),)
    of_h = range(2), range(2, 3)
    one_kernel = OneKernel("gru_before", gru_before_end, x_sums=(0,), h_sums=(0,), first=2, after_reset=True)
    persistent = True

    def forward(self, run: Run, gates: Any, initial: Any, y: Any, final: Any, saved: SavedDirection | None) -> None:
        (h_0,), (h_n,) = initial, final
        H, weights, variant = run.spec.hidden_size, run.weights, run.variant(y, h_0, h_n, saved=saved is not None)
        rh = run.empty(1, run.batch, H) if saved is None else saved.extra
        previous = Previous(run, h_0, y, h_n)
        common = {"gates": gates, "gates_t": gates.strides[0], "bias": weights.pointwise_b, **ragged(run)}

        def reset_arguments(first: bool) -> GruResetForward:
            return GruResetForward(**common, **previous.arguments(first), rh=rh, rh_t=rh.strides[0])

        def update_arguments(first: bool) -> GruBeforeForward:
            return GruBeforeForward(**common, **previous.arguments(first), **output(y), h_n=h_n)

        reset = Steps(run, variant, gru_reset_forward, reset_arguments, ends=True)
        update = Steps(run, variant, gru_before_forward, update_arguments, ends=True)
        for t in run.order:
            run.multiply(previous.matrix(t), weights.W_h[: 2 * H], gates[t][:, : 2 * H], transpose_b=True, accumulate=True)
            reset(t)
            rh_t = rh[0] if saved is None else rh[t]
            run.multiply(rh_t, weights.W_h[2 * H :], gates[t][:, 2 * H :], transpose_b=True, accumulate=True)
            update(t)

    def backward(self, run: Run, saved: SavedDirection, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
        (gates, _), (h_0,), (dh,) = saved, initial, d_state
        H, variant = run.spec.hidden_size, run.variant(y, dy, h_0, dh, saved=True)
        d_rh = run.wide_empty(run.batch, H)
        common = {**gate_arrays(gates, d_gates), "dh": dh}

        def update_arguments(first: bool) -> GruBeforeBackward:
            return GruBeforeBackward(**common, **previous_h(run, h_0, y, first), **output_gradient(dy))

        def reset_arguments(first: bool) -> GruResetBackward:
            return GruResetBackward(**common, **previous_h(run, h_0, y, first), d_rh=d_rh)

        update = Steps(run, variant, gru_before_backward, update_arguments)
        reset = Steps(run, variant, gru_reset_backward, reset_arguments)
        W_zr, W_n = run.weights.W_h[: 2 * H], run.weights.W_h[2 * H :]
        for t in reversed(run.order):
            update(t)
            run.multiply(d_gates[t][:, 2 * H :], W_n, d_rh)
            reset(t)
            run.multiply(d_gates[t][:, : 2 * H], W_zr, dh, accumulate=True)
