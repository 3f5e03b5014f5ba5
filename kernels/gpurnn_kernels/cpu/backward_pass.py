"""The backward pass of one layer: back through time, then the large products. Two commands to the team."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..spec import Array, Spec
from . import kernels
from .forward_pass import SAVED_GATES, Kept
from .job import VECTOR_BYTES
from .packing import aligned, aligned_zeros
from .records import Records, address, rows_at_once
from .schedule import Schedule, Share, cut
from .weight_gradients import DEPTH
from .weights import BACK, Weights

KERNELS = {
    "lstm": kernels.lstm_backward,
    "gru_before": kernels.gru_before_backward,
    "gru_after": kernels.gru_after_backward,
}
_PRODUCT_ROWS = 192  # rows of d_gates that meet a panel of W_x before the next one does


class DirectionGradients:
    """What one direction's backward pass fills: gradients of its state and parameters, and of x."""

    def __init__(self, records: Records, spec: Spec, steps: int, batch: int, ragged: bool) -> None:
        rows, lanes = steps * batch, records.lanes
        make = aligned_zeros if ragged else aligned
        self.d_row = records.blocks * spec.gates * lanes + VECTOR_BYTES // records.item
        # rows past a sequence's end count as zeros
        self.d_gates = make(rows * self.d_row, spec.dtype)
        self.apart = None if spec.cell == "lstm" else make(rows * records.row, spec.dtype)
        self.state = [np.empty((batch, spec.hidden_size), spec.dtype) for _ in range(spec.states)]
        self._gate_rows = spec.gates * spec.hidden_size
        self._spec = spec
        self._w_x = self._padded(spec.input_size, lanes)
        self._w_h = self._padded(spec.hidden_size, lanes)
        self.b = np.empty(self._gate_rows, spec.dtype)
        self.b_hn = np.empty(spec.hidden_size, spec.dtype)
        self.x = np.empty((steps, batch, spec.input_size), spec.dtype)

    def _padded(self, columns: int, lanes: int) -> Array:
        return np.zeros((self._gate_rows, -(-columns // lanes) * lanes), self._spec.dtype)

    def bind(self, records: Records, direction: int) -> None:
        item = records.item
        records.set(
            direction,
            d_gates=address(self.d_gates),
            d_row=self.d_row * item,
            dh_0=address(self.state[0]),
            dc_0=address(self.state[-1]),
            dw_x=address(self._w_x),
            dw_x_row=self._w_x.strides[0],
            dw_h=address(self._w_h),
            dw_h_row=self._w_h.strides[0],
            db=address(self.b),
            dx=address(self.x),
        )
        if self._spec.cell == "gru_after":
            records.set(direction, dq=address(self.apart), db_hn=address(self.b_hn))
        if self._spec.cell == "gru_before":
            records.set(direction, fed=address(self.apart))

    def parameters(self) -> dict[str, Array]:
        spec = self._spec
        named = {
            "W_x": np.ascontiguousarray(self._w_x[:, : spec.input_size]),
            "W_h": np.ascontiguousarray(self._w_h[:, : spec.hidden_size]),
            "b": self.b,
        }
        return named | ({"b_hn": self.b_hn} if spec.cell == "gru_after" else {})


def recurrence(weights: Sequence[Weights], schedule: Schedule, steps: int, batch: int, kept: Sequence[Kept]) -> Records:
    """Records of the way back through time; the arrays of the call and the gradients are still to be bound."""
    spec = weights[0].spec
    records = Records(spec, len(weights), schedule.shares, schedule.threads)
    step_row = records.blocks * spec.gates * records.lanes + VECTOR_BYTES // records.item
    for d, (direction, saved) in enumerate(zip(weights, kept, strict=True)):
        records.sizes(d, direction.spec, steps, batch)
        records.set(d, **{name: address(array) for name, array in direction.backward.items()})
        row = records.blocks * SAVED_GATES[spec.cell] * records.lanes + VECTOR_BYTES // records.item
        records.set(d, saved=address(saved.gates), saved_row=row * records.item, saved_c=address(saved.c))
        records.set(d, dh=records.room(batch * records.row))
        records.set(d, step=records.room(2 * batch * step_row), step_row=step_row * records.item)
        records.set(d, step_plane=batch * step_row * records.item, step_n=2 * records.blocks * VECTOR_BYTES)
        if spec.cell == "lstm":
            records.set(d, dc=records.room(batch * records.row), c=records.room(batch * records.row))
        if spec.cell == "gru_before":
            records.set(d, drh=records.room(batch * records.row))
    for work, share in zip(records.works, schedule.shares, strict=True):
        records.kernel(work, KERNELS[spec.cell])
        work["row_cap"] = rows_at_once(share.row_1 - share.row_0, step_row * records.item)
        work["panel"] = BACK
    return records


def products(jobs: Any, spec: Spec, blocks: int, rows: int, threads: int) -> Records:
    """Records of dW, db and dx over the jobs that `recurrence` has run."""
    directions = range(len(jobs))
    units, stretches = cut(blocks, threads), cut(rows, threads)
    weight = [Share(d, p, 0, 0, units[p], units[p + 1]) for p in range(threads) for d in directions]
    inputs = [Share(d, p, stretches[p], stretches[p + 1], 0, 0) for p in range(threads) for d in directions]
    shares = sorted([*weight, *inputs], key=lambda share: share.thread)
    records = Records(spec, len(jobs), shares, threads)
    records.jobs[:] = jobs
    for work, share in zip(records.works, shares, strict=True):
        of_weights = share.panel_1 > share.panel_0 or share.row_1 == share.row_0
        records.kernel(work, kernels.all_weight_gradients if of_weights else kernels.all_input_gradients)
        sums = (share.panel_1 - share.panel_0) * spec.gates
        depth = max(4 * DEPTH, sums) if of_weights else 4 * _PRODUCT_ROWS
        work["slots"] = records.room(depth * records.lanes)
        work["row_cap"] = _PRODUCT_ROWS
    return records
