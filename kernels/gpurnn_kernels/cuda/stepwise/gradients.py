"""Gradients of one direction, from those of its gates: a few large products and sums, never one a step."""

from typing import Any

from ..host.device import DeviceArray
from ..pointwise import sums as whole
from ..run import Run
from ..saved import SavedDirection


class DirectionGradients:
    """Makes what a direction adds to dx, and its parameters' gradients."""

    def __init__(
        self,
        run: Run,
        saved: SavedDirection,
        x: DeviceArray,  # (T, B, I), contiguous, zero past the lengths
        y: DeviceArray,  # (T * B, H), of any distance from row to row
        h_0: DeviceArray,  # (B, H)
        d_gates: DeviceArray,  # as `stepwise_back` fills it
    ) -> None:
        self._run, self._saved, self._y, self._h_0, self._d = run, saved, y, h_0, d_gates
        self._rows = run.steps * run.batch
        self._x = x.reshape(self._rows, -1)
        self._flat = d_gates.reshape(self._rows, -1)

    def _columns(self) -> list[tuple[slice, slice]]:
        """Pairs columns of the gates' gradients with rows of W_x."""
        H = self._run.spec.hidden_size
        if self._run.spec.cell == "gru_after":
            return [(slice(0, 2 * H), slice(0, 2 * H)), (slice(3 * H, 4 * H), slice(2 * H, 3 * H))]
        everything = slice(0, self._run.spec.gates * H)
        return [(everything, everything)]

    def add_to(self, dx: DeviceArray, accumulate: bool) -> None:
        """dx (T, B, I)"""
        for columns, rows in self._columns():
            W_x = self._run.weights.W_x[rows]
            self._run.multiply(self._flat[:, columns], W_x, dx.reshape(self._rows, -1), accumulate=accumulate)
            accumulate = True

    def parameters(self) -> dict[str, DeviceArray]:
        run, H = self._run, self._run.spec.hidden_size
        sums = whole.column_sums(run.device, self._flat)
        dW_x = run.wide_empty(*run.weights.W_x.shape)
        db = run.wide_empty(run.spec.gates * H)
        for columns, rows in self._columns():
            run.multiply(self._flat[:, columns], self._x, dW_x[rows], transpose_a=True)
            db[rows] = sums[columns]
        found = {"W_x": dW_x, "W_h": self._recurrent(), "b": db}
        if run.spec.cell == "gru_after":
            found["b_hn"] = sums[2 * H : 3 * H].copy()
        return {name: run.narrowed(array) for name, array in found.items()}

    def _recurrent(self) -> DeviceArray:
        run, H = self._run, self._run.spec.hidden_size
        found = run.wide_empty(run.spec.gates * H, H)
        if run.spec.cell == "gru_before":
            self._times_h(slice(0, 2 * H), found[: 2 * H])
            run.multiply(self._flat[:, 2 * H :], self._saved.extra.reshape(self._rows, H), found[2 * H :], transpose_a=True)
        else:
            self._times_h(slice(0, run.spec.gates * H), found)
        return found

    def _times_h(self, columns: slice, out: DeviceArray) -> None:
        """The sum over steps of gates' gradients times h of the step before: h_0 where a row starts, y elsewhere."""
        run, batch = self._run, self._run.batch
        run.multiply(self._starts()[:, columns], self._h_0, out, transpose_a=True)
        if run.steps > 1:
            later, earlier = slice(batch, self._rows), slice(0, self._rows - batch)
            steps, before = (earlier, later) if run.spec.reverse else (later, earlier)
            run.multiply(self._flat[steps, columns], self._y[before], out, transpose_a=True, accumulate=True)

    def _starts(self) -> Any:
        """(B, ..) of the step where each row starts."""
        run = self._run
        if run.lengths is not None and run.spec.reverse:
            return whole.starts(run.device, self._d, run.lengths)
        return self._d[run.order[0]]
