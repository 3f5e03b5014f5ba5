"""Gradients of one direction, from those of its gates: a few large products and sums, never one a step."""

from typing import Any

from .cells.cell import Cell
from .host.device import DeviceArray
from .pointwise import sums as whole
from .run import Run
from .saved import SavedDirection


class DirectionGradients:
    """Makes what a direction adds to dx, and its parameters' gradients."""

    def __init__(
        self,
        run: Run,
        cell: Cell,
        saved: SavedDirection,
        x: DeviceArray,  # (T, B, I), contiguous, zero past the lengths
        y: DeviceArray,  # (T * B, H), of any distance from row to row
        h_0: DeviceArray,  # (B, H)
        d_gates: DeviceArray,  # (T, B, gradients * H)
    ) -> None:
        self._run, self._cell, self._saved, self._y, self._h_0, self._d = run, cell, saved, y, h_0, d_gates
        self._rows = run.steps * run.batch
        self._x = x.reshape(self._rows, -1)
        self._flat = d_gates.reshape(self._rows, -1)

    def _units(self, gates: range) -> slice:
        """The columns of gates' gradients, or the rows of gates' weights."""
        H = self._run.spec.hidden_size
        return slice(gates.start * H, gates.stop * H)

    def add_to(self, dx: DeviceArray, accumulate: bool) -> None:
        """dx (T, B, I)"""
        for columns, gates in self._cell.of_x:
            W_x = self._run.weights.W_x[self._units(gates)]
            d = self._flat[:, self._units(columns)]
            self._run.multiply(d, W_x, dx.reshape(self._rows, -1), accumulate=accumulate)
            accumulate = True

    def parameters(self) -> dict[str, DeviceArray]:
        run = self._run
        sums = whole.column_sums(run.device, self._flat)
        dW_x = run.wide_empty(*run.weights.W_x.shape)
        db = run.wide_empty(len(dW_x))
        for columns, gates in self._cell.of_x:
            rows, here = self._units(gates), self._units(columns)
            run.multiply(self._flat[:, here], self._x, dW_x[rows], transpose_a=True)
            db[rows] = sums[here]
        found = {"W_x": dW_x, "W_h": self._recurrent(), "b": db}
        for name, gate in self._cell.of_biases:
            found[name] = sums[self._units(range(gate, gate + 1))].copy()
        return {name: run.narrowed(array) for name, array in found.items()}

    def _recurrent(self) -> DeviceArray:
        run = self._run
        found = run.wide_empty(*run.weights.W_h.shape)
        first, *second = map(self._units, self._cell.of_h)
        self._times_h(first, found[first])
        for rows in second:
            run.multiply(self._flat[:, rows], self._saved.extra.reshape(self._rows, -1), found[rows], transpose_a=True)
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
