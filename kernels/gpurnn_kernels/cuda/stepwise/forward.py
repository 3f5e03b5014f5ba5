"""The forward pass step by step: one product for all of W_x x, then a product and a pointwise kernel a step (a reset-before
GRU: two and two). Works for every size."""

from collections.abc import Callable, Sequence
from typing import Any

from ..host.device import DeviceArray, Kernel, Launch
from ..pointwise.form import Variant
from ..pointwise.gru_after import GruAfterForward, gru_after_forward
from ..pointwise.gru_before import GruBeforeForward, GruResetForward, gru_before_forward, gru_reset_forward
from ..pointwise.lstm import LstmForward, lstm_forward
from ..run import Run, strides
from ..saved import SavedDirection

NOTHING = 0  # the address of an array that a kernel's variant does not touch


class Steps:
    """A kernel over all steps. The first reads the state that the caller gave, the last leaves one: up to four ways to bind
    its arguments, each made once."""

    def __init__(
        self, run: Run, variant: Variant, kernel: Callable[[Variant], Kernel], arguments: Callable[[bool], Any]
    ) -> None:
        """arguments(first): the kernel's record; first: whether the step is the sequence's first."""
        self._run, self._variant, self._kernel, self._arguments = run, variant, kernel, arguments
        self._bound: dict[tuple[bool, bool], Launch] = {}

    def __call__(self, t: int) -> None:
        order = self._run.order
        which = (t == order[0], t == order[-1])
        launch = self._bound.get(which)
        if launch is None:
            variant = self._variant.at_end() if which[1] else self._variant
            grid = self._run.grid(variant)
            launch = self._run.device.launcher(self._kernel(variant), grid, self._arguments(which[0]))
            self._bound[which] = launch
        launch(t)


class Previous:
    """Where h of the step before is: given by the caller, then in y; in ragged batches, where y is 0 past a length, in the
    array of the final state, which moves on."""

    def __init__(self, run: Run, initial: DeviceArray, y: DeviceArray, h_n: DeviceArray) -> None:
        self._run, self._initial, self._y, self._h_n = run, initial, y, h_n

    def matrix(self, t: int) -> DeviceArray:
        """(B, H)"""
        if t == self._run.order[0]:
            return self._initial
        return self._y[t + self._run.to_previous] if self._run.lengths is None else self._h_n

    def arguments(self, first: bool) -> dict[str, Any]:
        """The fields of a kernel's record that say where h of the step before is."""
        if first or self._run.lengths is not None:
            array = self._initial if first else self._h_n
            return {"h_prev": array, "h_prev_t": 0, "h_prev_row": array.strides[0], "to_previous": 0}
        t, row = strides(self._y)
        return {"h_prev": self._y, "h_prev_t": t, "h_prev_row": row, "to_previous": self._run.to_previous}


def forward(
    run: Run,
    gates: DeviceArray,  # (T, B, G*H): W_x x without its bias; overwritten
    initial: Sequence[DeviceArray],  # (B, H) each
    y: DeviceArray,  # (T, B, H) of any strides, units side by side
    final: Sequence[DeviceArray],  # (B, H) each
    saved: SavedDirection | None,  # its gates are `gates`
) -> None:
    """Fills y, with zeros past the lengths, the final state and what is to be saved."""
    _CELLS[run.spec.cell](run, gates, initial, y, final, saved)


def ragged(run: Run) -> dict[str, Any]:
    """The fields of a kernel's record that say how long rows are."""
    return {"lengths": NOTHING if run.lengths is None else run.lengths, "batch": run.batch}


def output(y: DeviceArray) -> dict[str, Any]:
    """The fields of a kernel's record that say where y is."""
    t, row = strides(y)
    return {"y": y, "y_t": t, "y_row": row}


def _lstm(run: Run, gates: Any, initial: Any, y: Any, final: Any, saved: SavedDirection | None) -> None:
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

    step = Steps(run, variant, lstm_forward, arguments)
    previous = Previous(run, h_0, y, h_n)
    for t in run.order:
        run.multiply(previous.matrix(t), weights.W_h, gates[t], transpose_b=True, accumulate=True)
        step(t)


def _gru_after(run: Run, gates: Any, initial: Any, y: Any, final: Any, saved: SavedDirection | None) -> None:
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

    step = Steps(run, variant, gru_after_forward, arguments)
    for t in run.order:
        run.multiply(previous.matrix(t), weights.W_h, products, transpose_b=True)
        step(t)


def _gru_before(run: Run, gates: Any, initial: Any, y: Any, final: Any, saved: SavedDirection | None) -> None:
    (h_0,), (h_n,) = initial, final
    H, weights, variant = run.spec.hidden_size, run.weights, run.variant(y, h_0, h_n, saved=saved is not None)
    rh = run.empty(1, run.batch, H) if saved is None else saved.extra
    previous = Previous(run, h_0, y, h_n)
    common = {"gates": gates, "gates_t": gates.strides[0], "bias": weights.pointwise_b, **ragged(run)}

    def reset_arguments(first: bool) -> GruResetForward:
        return GruResetForward(**common, **previous.arguments(first), rh=rh, rh_t=rh.strides[0])

    def update_arguments(first: bool) -> GruBeforeForward:
        return GruBeforeForward(**common, **previous.arguments(first), **output(y), h_n=h_n)

    reset = Steps(run, variant, gru_reset_forward, reset_arguments)
    update = Steps(run, variant, gru_before_forward, update_arguments)
    for t in run.order:
        run.multiply(previous.matrix(t), weights.W_h[: 2 * H], gates[t][:, : 2 * H], transpose_b=True, accumulate=True)
        reset(t)
        rh_t = rh[0] if saved is None else rh[t]
        run.multiply(rh_t, weights.W_h[2 * H :], gates[t][:, 2 * H :], transpose_b=True, accumulate=True)
        update(t)


_CELLS = {"lstm": _lstm, "gru_after": _gru_after, "gru_before": _gru_before}
