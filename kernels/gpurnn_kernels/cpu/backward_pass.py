"""The backward pass of one layer: back through time, then the large products. Two commands to the team."""

from collections.abc import Sequence

import numpy as np

from ..spec import Array, Spec
from .amx.choice import Products
from .amx.gradients import amx_input_gradients, amx_recurrent_product, gradients_room
from .amx.strips import rows_room
from .backward import BACK, backward
from .forward_pass import SAVED_GATES, Kept
from .job import VECTOR_BYTES
from .kernels import variant_of
from .records import Records, address, rows_at_once
from .schedule import Schedule, Share, cut
from .shelf import ARRAYS
from .weight_gradients import input_gradients, scratch
from .weights import Weights

_PRODUCT_ROWS = 192  # rows of d_gates that meet a panel of W_x before the next one does


class DirectionGradients:
    """What one direction's backward pass fills: gradients of its state and parameters, and of x."""

    def __init__(self, records: Records, spec: Spec, steps: int, batch: int, ragged: bool) -> None:
        rows, lanes = steps * batch, records.lanes
        make = ARRAYS.borrowed_zeros if ragged else ARRAYS.borrowed
        self.d_row = records.blocks * spec.gates * lanes + VECTOR_BYTES // records.item
        # rows past a sequence's end count as zeros
        self.d_gates = make(rows * self.d_row, spec.dtype)
        self.apart = None if spec.cell == "lstm" else make(rows * records.row, spec.dtype)
        self.dh = make(rows * records.row, spec.dtype) if spec.proj_size else None
        self.state = [np.empty((batch, size), spec.dtype) for size in spec.state_sizes]
        self._gate_rows = spec.gates * spec.hidden_size
        self._spec = spec
        self._w_x = self._padded(self._gate_rows, spec.input_size, lanes)
        self._w_h = self._padded(self._gate_rows, spec.output_size, lanes)
        self._w_p = self._padded(spec.proj_size, spec.hidden_size, lanes)
        self._peephole = np.empty(3 * spec.hidden_size if spec.peepholes else 0, spec.dtype)
        self.b = np.empty(self._gate_rows, spec.dtype)
        self.b_hn = np.empty(spec.hidden_size, spec.dtype)
        self.x = ARRAYS.lent((steps, batch, spec.input_size), spec.dtype)

    def _padded(self, rows: int, columns: int, lanes: int) -> Array:
        return ARRAYS.lent((rows, -(-columns // lanes) * lanes), self._spec.dtype)

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
            dw_p=address(self._w_p),
            dw_p_row=self._w_p.strides[0],
            db=address(self.b),
            d_peephole=address(self._peephole),
            saved_dh=address(self.dh),
            dx=address(self.x),
        )
        if self._spec.cell == "gru_after":
            records.set(direction, dq=address(self.apart), db_hn=address(self.b_hn))
        if self._spec.cell == "gru_before":
            records.set(direction, fed=address(self.apart))

    def done(self) -> None:
        """The products have run: what they read can serve another call."""
        ARRAYS.returned(self.d_gates, self.apart, self.dh)

    def parameters(self) -> dict[str, Array]:
        spec = self._spec
        named = {
            "W_x": np.ascontiguousarray(self._w_x[:, : spec.input_size]),
            "W_h": np.ascontiguousarray(self._w_h[:, : spec.output_size]),
            "b": self.b,
            "W_p": np.ascontiguousarray(self._w_p[:, : spec.hidden_size]),
            "peephole": self._peephole,
        }
        return named | ({"b_hn": self.b_hn} if spec.cell == "gru_after" else {})


class BackwardProgram:
    """The records of one layer's backward pass, all its directions: back through time, then the large products. As a
    `ForwardProgram`, it does not depend on the arrays of one call, and whoever takes one from the pool has it alone."""

    def __init__(self, weights: Sequence[Weights], steps: int, batch: int, schedule: Schedule, products: Products) -> None:
        spec = weights[0].spec
        self._products = products
        self.records = records = Records(spec, len(weights), schedule.shares, schedule.threads)
        step_row = records.blocks * spec.gates * records.lanes + VECTOR_BYTES // records.item
        saved_row = records.blocks * SAVED_GATES[spec.cell] * records.lanes + VECTOR_BYTES // records.item
        for d, direction in enumerate(weights):
            records.sizes(d, direction.spec, steps, batch)
            records.set(d, saved_row=saved_row * records.item)
            records.set(d, dh=records.room(batch * records.row))
            records.set(d, step=records.room(2 * batch * step_row), step_row=step_row * records.item)
            records.set(d, step_plane=batch * step_row * records.item, step_n=2 * records.blocks * VECTOR_BYTES)
            if spec.cell == "lstm":
                records.set(d, dc=records.room(batch * records.row), c=records.room(batch * records.row))
            if spec.cell == "gru_before":
                records.set(d, drh=records.room(batch * records.row))
            if spec.proj_size:
                records.set(d, dm=records.room(batch * records.row), dh_step=records.room(batch * records.row))
        for work, share in zip(records.works, schedule.shares, strict=True):
            work["kernel"] = records.address_of(backward)
            work["row_cap"] = rows_at_once(share.row_1 - share.row_0, step_row * records.item)
            records.panels(work, share, BACK)
            if products.recurrent:
                work["slots"] = records.room(rows_room(int(work["row_cap"]), records.blocks * spec.gates) // records.item)
        for d in range(len(weights)):
            records.set(d, step_kernel=records.address_of(variant_of(spec).step_back))
            if products.recurrent:
                records.set(d, recurrent_kernel=records.address_of(amx_recurrent_product))
        records.tiles()
        records.tiles(transposed=True)
        self._large = _large_products(records, len(weights), steps * batch, schedule.threads, products.large)
        self.use(weights)

    @property
    def bytes(self) -> int:
        """That are held."""
        return self.records.bytes + self._large.bytes

    def use(self, weights: Sequence[Weights]) -> None:
        """Runs on these weights from now on: other values of the same shapes."""
        self._weights = weights
        for d, direction in enumerate(weights):
            self.records.set(d, **direction.addresses(self._products))

    def bind(self, direction: int, kept: Kept) -> None:
        """Reads what the forward pass has left."""
        self.records.set(direction, saved=address(kept.gates), saved_c=address(kept.c), saved_m=address(kept.m))

    def run(self) -> None:
        self.records.run()
        self._large.copy_jobs(self.records)
        self._large.run()


def _large_products(like: Records, directions: int, rows: int, threads: int, amx: bool) -> Records:
    """Records of dW, db and dx, of `rows` rows (t, b), over the jobs of records `like`, which have run back through time."""
    spec, variant = like.spec, variant_of(like.spec)
    gates = spec.gates * like.blocks
    weight_kernel = variant.amx_weight_gradients if amx else variant.weight_gradients
    input_kernel = amx_input_gradients if amx else input_gradients
    units, stretches, outputs = cut(like.blocks, threads), cut(rows, threads), cut(like.out_blocks, threads)
    weight = [Share(d, p, 0, 0, units[p], units[p + 1]) for p in range(threads) for d in range(directions)]
    inputs = [Share(d, p, stretches[p], stretches[p + 1], 0, 0) for p in range(threads) for d in range(directions)]
    tasks = [*((share, weight_kernel) for share in weight), *((share, input_kernel) for share in inputs)]
    tasks.sort(key=lambda task: task[0].thread)
    records = Records(spec, directions, [share for share, _ in tasks], threads)
    for work, (share, kernel) in zip(records.works, tasks, strict=True):
        work["kernel"] = records.address_of(kernel)
        if kernel is weight_kernel:
            mine = share.panel_1 - share.panel_0
            room = max(scratch(mine) * VECTOR_BYTES, gradients_room(mine) if amx else 0)
        else:
            room = rows_room(share.row_1 - share.row_0, gates) if amx else BACK * _PRODUCT_ROWS * VECTOR_BYTES
        work["slots"] = records.room(room // like.item)
        work["row_cap"] = _PRODUCT_ROWS
        work["out_0"], work["out_1"] = outputs[share.thread], outputs[share.thread + 1]
    return records
