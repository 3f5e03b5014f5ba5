"""Back-propagation through time step by step: a pointwise kernel and a product a step (a reset-before GRU: two and two)."""

from collections.abc import Callable, Sequence
from typing import Any

from ..host.device import DeviceArray, Kernel, Launch
from ..pointwise.form import Variant
from ..pointwise.gru_after import GruAfterBackward, gru_after_backward
from ..pointwise.gru_before import GruBeforeBackward, GruResetBackward, gru_before_backward, gru_reset_backward
from ..pointwise.lstm import LstmBackward, lstm_backward
from ..run import Run, strides
from ..saved import SavedDirection
from .forward import ragged


class StepsBack:
    """A kernel over all steps: all but the sequence's first read the state before from what the forward pass left."""

    def __init__(self, run: Run, variant: Variant, kernel: Kernel, arguments: Callable[[bool], Any]) -> None:
        """arguments(first): the kernel's record; first: whether the step is the sequence's first."""
        self._first = run.order[0]
        self._bind = lambda first: run.device.launcher(kernel, run.grid(variant), arguments(first))
        self._bound: dict[bool, Launch] = {}

    def __call__(self, t: int) -> None:
        first = t == self._first
        if first not in self._bound:
            self._bound[first] = self._bind(first)
        self._bound[first](t)


def backward(
    run: Run,
    saved: SavedDirection,
    initial: Sequence[DeviceArray],  # (B, H) each
    y: DeviceArray,  # (T, B, H), as the forward pass left it
    dy: DeviceArray,  # (T, B, H) of any strides, units side by side
    d_state: Sequence[DeviceArray],  # (B, H) each, of the final state, wide; becomes that of the initial one
    d_gates: DeviceArray,  # (T, B, G*H), for a reset-after GRU (T, B, 4H): z, r, q, n
) -> None:
    """Fills d_gates, with zeros past the lengths, and moves d_state back."""
    _CELLS[run.spec.cell](run, saved, initial, y, dy, d_state, d_gates)


def _output_gradient(dy: DeviceArray) -> dict[str, Any]:
    """The fields of a kernel's record that say where dy is."""
    t, row = strides(dy)
    return {"dy": dy, "dy_t": t, "dy_row": row}


def _lstm(run: Run, saved: SavedDirection, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
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
            **_output_gradient(dy),
            dh=dh,
            dc=dc,
            d_gates=d_gates,
            d_gates_t=d_gates.strides[0],
            **ragged(run),
        )

    step = StepsBack(run, variant, lstm_backward(variant), arguments)
    for t in reversed(run.order):
        step(t)
        # in a ragged batch the kernel leaves zeros where a row is valid, and elsewhere what the row's end is to find
        run.multiply(d_gates[t], run.weights.W_h, dh, accumulate=run.lengths is not None)


def _previous(run: Run, h_0: Any, y: Any, first: bool) -> dict[str, Any]:
    """The fields of a GRU's record that say where h of the step before is."""
    common = {"h_0": h_0, "last": run.steps - 1 if run.spec.reverse else -1, **ragged(run)}
    if first and run.lengths is None:
        return {"h_prev": h_0, "h_prev_t": 0, "h_prev_row": h_0.strides[0], "to_previous": 0, **common}
    t, row = strides(y)
    return {"h_prev": y, "h_prev_t": t, "h_prev_row": row, "to_previous": run.to_previous, **common}


def _gates(gates: Any, d_gates: Any) -> dict[str, Any]:
    return {"gates": gates, "gates_t": gates.strides[0], "d_gates": d_gates, "d_gates_t": d_gates.strides[0]}


def _gru_after(run: Run, saved: SavedDirection, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
    (gates, q), (h_0,), (dh,) = saved, initial, d_state
    H, variant = run.spec.hidden_size, run.variant(y, dy, h_0, dh, saved=True)
    common = {**_gates(gates, d_gates), **_output_gradient(dy), "dh": dh, "q": q, "q_t": q.strides[0]}

    def arguments(first: bool) -> GruAfterBackward:
        return GruAfterBackward(**common, **_previous(run, h_0, y, first))

    step = StepsBack(run, variant, gru_after_backward(variant), arguments)
    for t in reversed(run.order):
        step(t)
        run.multiply(d_gates[t][:, : 3 * H], run.weights.W_h, dh, accumulate=True)


def _gru_before(run: Run, saved: SavedDirection, initial: Any, y: Any, dy: Any, d_state: Any, d_gates: Any) -> None:
    (gates, _), (h_0,), (dh,) = saved, initial, d_state
    H, variant = run.spec.hidden_size, run.variant(y, dy, h_0, dh, saved=True)
    d_rh = run.wide_empty(run.batch, H)
    common = {**_gates(gates, d_gates), "dh": dh}

    def update_arguments(first: bool) -> GruBeforeBackward:
        return GruBeforeBackward(**common, **_previous(run, h_0, y, first), **_output_gradient(dy))

    def reset_arguments(first: bool) -> GruResetBackward:
        return GruResetBackward(**common, **_previous(run, h_0, y, first), d_rh=d_rh)

    update = StepsBack(run, variant, gru_before_backward(variant), update_arguments)
    reset = StepsBack(run, variant, gru_reset_backward(variant), reset_arguments)
    W_zr, W_n = run.weights.W_h[: 2 * H], run.weights.W_h[2 * H :]
    for t in reversed(run.order):
        update(t)
        run.multiply(d_gates[t][:, 2 * H :], W_n, d_rh)
        reset(t)
        run.multiply(d_gates[t][:, : 2 * H], W_zr, dh, accumulate=True)


_CELLS = {"lstm": _lstm, "gru_after": _gru_after, "gru_before": _gru_before}
