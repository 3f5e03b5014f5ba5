"""Back-propagation through time step by step: a pointwise kernel and a product a step (a reset-before GRU: two and two)."""

from collections.abc import Callable, Sequence
from typing import Any

from ..host.device import DeviceArray, Kernel, Launch
from ..pointwise.form import Variant
from ..pointwise.gru_backward import gru_after_backward, gru_before_backward, gru_reset_backward
from ..pointwise.lstm import lstm_backward
from ..run import Run, strides
from ..saved import Saved
from .forward import NOTHING


class StepsBack:
    """A kernel over all steps: all but the sequence's first read the state before from what the forward pass left."""

    def __init__(self, run: Run, variant: Variant, kernel: Kernel, arguments: Callable[[bool], Any]) -> None:
        """arguments: all but the step's number; given whether it is the sequence's first."""
        self._first = run.order[0]
        self._bind = lambda first: run.device.launcher(kernel, run.grid(variant), *arguments(first))
        self._bound: dict[bool, Launch] = {}

    def __call__(self, t: int) -> None:
        first = t == self._first
        if first not in self._bound:
            self._bound[first] = self._bind(first)
        self._bound[first](t)


def backward(
    run: Run,
    saved: Saved,
    initial: Sequence[DeviceArray],  # (B, H) each
    y: DeviceArray,  # (T, B, H), as the forward pass left it
    dy: DeviceArray,  # (T, B, H) of any strides, units side by side
    d_state: Sequence[DeviceArray],  # (B, H) each, of the final state, wide; becomes that of the initial one
    d_gates: DeviceArray,  # (T, B, G*H), for a reset-after GRU (T, B, 4H): z, r, q, n
) -> None:
    """Fills d_gates, with zeros past the lengths, and moves d_state back."""
    _CELLS[run.spec.cell](run, saved, initial, y, dy, d_state, d_gates)


def _lengths(run: Run) -> Any:
    return NOTHING if run.lengths is None else run.lengths


def _lstm(run: Run, saved: Saved, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
    (gates, cs), (_, c_0), (dh, dc) = saved, initial, d_state
    variant = run.variant(dy, c_0, dh, dc, saved=True)
    c_0 = run.widened(c_0)
    stride = cs.strides[0]

    def arguments(first: bool) -> Any:
        c_prev = (c_0, 0, 0) if first else (cs, stride, run.before)
        rest = (dy, *strides(dy), dh, dc, d_gates, d_gates.strides[0], _lengths(run), run.batch)
        return gates, gates.strides[0], *c_prev, cs, stride, *rest

    step = StepsBack(run, variant, lstm_backward(variant), arguments)
    for t in reversed(run.order):
        step(t)
        # in a ragged batch the kernel leaves zeros where a row is valid, and elsewhere what the row's end is to find
        run.multiply(d_gates[t], run.weights.W_h, dh, accumulate=run.lengths is not None)


def _h_prev(run: Run, h_0: Any, y: Any, first: bool) -> Any:
    """h_prev, h_prev_t, h_prev_row, before, h_0"""
    if first and run.lengths is None:
        return h_0, 0, h_0.strides[0], 0, h_0
    return y, *strides(y), run.before, h_0


def _ends(run: Run) -> Any:
    """lengths, last"""
    return _lengths(run), run.steps - 1 if run.spec.reverse else -1


def _gru_after(run: Run, saved: Saved, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
    (gates, q), (h_0,), (dh,) = saved, initial, d_state
    H, variant = run.spec.hidden_size, run.variant(y, dy, h_0, dh, saved=True)

    def arguments(first: bool) -> Any:
        rest = (dy, *strides(dy), dh, d_gates, d_gates.strides[0], *_ends(run), run.batch)
        return gates, gates.strides[0], q, q.strides[0], *_h_prev(run, h_0, y, first), *rest

    step = StepsBack(run, variant, gru_after_backward(variant), arguments)
    for t in reversed(run.order):
        step(t)
        run.multiply(d_gates[t][:, : 3 * H], run.weights.W_h, dh, accumulate=True)


def _gru_before(run: Run, saved: Saved, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
    (gates, _), (h_0,), (dh,) = saved, initial, d_state
    H, variant = run.spec.hidden_size, run.variant(y, dy, h_0, dh, saved=True)
    d_rh = run.wide_empty(run.batch, H)

    def update_arguments(first: bool) -> Any:
        rest = (dy, *strides(dy), dh, d_gates, d_gates.strides[0], *_ends(run), run.batch)
        return gates, gates.strides[0], *_h_prev(run, h_0, y, first), *rest

    def reset_arguments(first: bool) -> Any:
        rest = (d_rh, dh, d_gates, d_gates.strides[0], *_ends(run), run.batch)
        return gates, gates.strides[0], *_h_prev(run, h_0, y, first), *rest

    update = StepsBack(run, variant, gru_before_backward(variant), update_arguments)
    reset = StepsBack(run, variant, gru_reset_backward(variant), reset_arguments)
    W_zr, W_n = run.weights.W_h[: 2 * H], run.weights.W_h[2 * H :]
    for t in reversed(run.order):
        update(t)
        run.multiply(d_gates[t][:, 2 * H :], W_n, d_rh)
        reset(t)
        run.multiply(d_gates[t][:, : 2 * H], W_zr, dh, accumulate=True)


_CELLS = {"lstm": _lstm, "gru_after": _gru_after, "gru_before": _gru_before}
