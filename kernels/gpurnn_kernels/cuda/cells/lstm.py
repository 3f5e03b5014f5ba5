"""The LSTM: a product and a pointwise kernel a step."""

from typing import Any

from ..pointwise.lstm import LstmBackward, LstmForward, lstm_backward, lstm_forward
from ..run import Run
from ..saved import SavedDirection
from ..step.kernel import OneKernel, lstm_end
from ..stepwise.steps import Previous, Steps, output, ragged
from ..stepwise.steps_back import output_gradient
from .cell import Cell, Columns


class LSTMCell(Cell):
    of_x = (Columns(range(4), range(4)),)
    of_h = (range(4),)
    one_kernel = OneKernel("lstm", lstm_end, x_sums=(0, 1, 2, 3), h_sums=(0, 1, 2, 3))
    persistent = True

    def forward(self, run: Run, gates: Any, initial: Any, y: Any, final: Any, saved: SavedDirection | None) -> None:
        (h_0, c_0), (h_n, c_n) = initial, final
        weights, variant = run.weights, run.variant(y, *initial, *final, saved=saved is not None)
        c_0 = run.widened(c_0)
        running = c_n if c_n.dtype == run.wide else run.wide_empty(*c_n.shape)
        c = running if saved is None else saved.extra
        c_t = 0 if saved is None else c.strides[0]

        def arguments(first: bool) -> LstmForward:
            return LstmForward(
                gates=gates,
                gates_t=gates.strides[0],
                bias=weights.pointwise_b,
                c_prev=c_0 if first else c,
                c_prev_t=0 if first else c_t,
                to_previous=0 if first else run.to_previous,
                c=c,
                c_t=c_t,
                **output(y),
                h_prev=h_0 if first else h_n,
                h_n=h_n,
                c_n=c_n,
                **ragged(run),
            )

        step = Steps(run, variant, lstm_forward, arguments, ends=True)
        previous = Previous(run, h_0, y, h_n)
        for t in run.order:
            run.multiply(previous.matrix(t), weights.W_h, gates[t], transpose_b=True, accumulate=True)
            step(t)

    def backward(self, run: Run, saved: SavedDirection, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
        (gates, cs), (_, c_0), (dh, dc) = saved, initial, d_state
        variant = run.variant(dy, c_0, dh, dc, saved=True)
        c_0 = run.widened(c_0)

        def arguments(first: bool) -> LstmBackward:
            return LstmBackward(
                gates=gates,
                gates_t=gates.strides[0],
                c_prev=c_0 if first else cs,
                c_prev_t=0 if first else cs.strides[0],
                to_previous=0 if first else run.to_previous,
                c=cs,
                c_t=cs.strides[0],
                **output_gradient(dy),
                dh=dh,
                dc=dc,
                d_gates=d_gates,
                d_gates_t=d_gates.strides[0],
                **ragged(run),
            )

        step = Steps(run, variant, lstm_backward, arguments)
        for t in reversed(run.order):
            step(t)
            # in a ragged batch the kernel has set dh to zero for rows that have this step. For others dh is the gradient of
            # their final h, which must stay. So the product is added.
            run.multiply(d_gates[t], run.weights.W_h, dh, accumulate=run.lengths is not None)
