"""The GRU with the reset after: a product and a pointwise kernel a step."""

from typing import Any

from ..pointwise.gru_after import GruAfterBackward, GruAfterForward, gru_after_backward, gru_after_forward
from ..run import Run
from ..saved import SavedDirection
from ..step.kernel import OneKernel, gru_after_end
from ..stepwise.steps import NOTHING, Previous, Steps, output, ragged
from ..stepwise.steps_back import gate_arrays, output_gradient, previous_h
from .cell import Cell, Columns


class GRUAfterCell(Cell):
    # d_gates holds the gradients of z, r, q, n: dW_h is made of z, r, q, and dW_x of z, r, n
    of_x = Columns(range(2), range(2)), Columns(range(3, 4), range(2, 3))
    of_h = (range(3),)
    of_biases = (("b_hn", 2),)
    one_kernel = OneKernel("gru_after", gru_after_end, x_sums=(0, 1, 2), h_sums=(0, 1, 3))
    persistent = True

    def forward(self, run: Run, gates: Any, initial: Any, y: Any, final: Any, saved: SavedDirection | None) -> None:
        (h_0,), (h_n,) = initial, final
        weights, variant = run.weights, run.variant(y, h_0, h_n, saved=saved is not None)
        products = run.wide_empty(run.batch, 3 * run.spec.hidden_size)
        previous = Previous(run, h_0, y, h_n)

        def arguments(first: bool) -> GruAfterForward:
            return GruAfterForward(
                gates=gates,
                gates_t=gates.strides[0],
                products=products,
                bias=weights.pointwise_b,
                b_hn=weights.b_hn,
                **previous.arguments(first),
                q=NOTHING if saved is None else saved.extra,
                q_t=0 if saved is None else saved.extra.strides[0],
                **output(y),
                h_n=h_n,
                **ragged(run),
            )

        step = Steps(run, variant, gru_after_forward, arguments, ends=True)
        for t in run.order:
            run.multiply(previous.matrix(t), weights.W_h, products, transpose_b=True)
            step(t)

    def backward(self, run: Run, saved: SavedDirection, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
        (gates, q), (h_0,), (dh,) = saved, initial, d_state
        H, variant = run.spec.hidden_size, run.variant(y, dy, h_0, dh, saved=True)
        common = {**gate_arrays(gates, d_gates), **output_gradient(dy), "dh": dh, "q": q, "q_t": q.strides[0]}

        def arguments(first: bool) -> GruAfterBackward:
            return GruAfterBackward(**common, **previous_h(run, h_0, y, first))

        step = Steps(run, variant, gru_after_backward, arguments)
        for t in reversed(run.order):
            step(t)
            run.multiply(d_gates[t][:, : 3 * H], run.weights.W_h, dh, accumulate=True)
