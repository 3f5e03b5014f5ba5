"""The backward pass of one layer, made ready: a command goes back through time, then one makes the large products."""

from collections.abc import Sequence

import numpy as np

from ...spec import Array, Spec
from ..cells import cell_of, steps_of
from ..codegen.aligned import address, aligned, side_by_side
from ..codegen.descriptors import VECTOR_BYTES
from ..codegen.target import target
from ..passes.amx_gradients import amx_input_gradients, amx_recurrent_product, amx_weight_gradients, gradients_room
from ..passes.backward import backward
from ..passes.option_gradients import option_gradients
from ..passes.weight_gradients import all_weight_gradients, input_gradients, scratch
from ..products.amx.strips import rows_room
from ..products.gemm import NR_BACK
from ..threads.partition import Part, Schedule, cut
from .blocking import PRODUCT_ROWS, SCRATCH_BYTES, Products, backward_blocking
from .buffers import ARRAYS
from .command import PHASE_KERNELS, Records
from .weights import Weights

_FIELDS = {"W_x": "dw_x", "W_h": "dw_h", "W_p": "dw_p", "b": "db", "b_hn": "db_hn", "peephole": "d_peephole"}


class DirectionGradients:
    """The arrays of one direction that the products fill: gradients of x and of parameters. Matrices have padded columns."""

    def __init__(self, spec: Spec, steps: int, batch: int) -> None:
        self.x = ARRAYS.lease((steps, batch, spec.input_size), spec.dtype)
        lanes = VECTOR_BYTES // spec.dtype.itemsize
        rows = spec.gates * spec.hidden_size
        matrices = {"W_x": (rows, spec.input_size), "W_h": (rows, spec.output_size)}
        vectors = {"b": rows}
        for bias in spec.shape.biases:
            vectors[bias] = spec.hidden_size
        if spec.peepholes:
            vectors["peephole"] = 3 * spec.hidden_size
        if spec.proj_size:
            matrices["W_p"] = (spec.proj_size, spec.hidden_size)
        self._columns = {name: columns for name, (_, columns) in matrices.items()}
        self._arrays = {
            name: ARRAYS.lease((rows, -(-columns // lanes) * lanes), spec.dtype) for name, (rows, columns) in matrices.items()
        } | {name: np.empty(size, spec.dtype) for name, size in vectors.items()}

    def fields(self) -> dict[str, int]:
        """Gives the fields of a job that fills the arrays."""
        found = {_FIELDS[name]: address(array) for name, array in self._arrays.items()}
        found["dx"] = address(self.x)
        for name in self._columns:
            found[f"{_FIELDS[name]}_row"] = self._arrays[name].strides[0]
        return found

    def parameters(self) -> dict[str, Array]:
        found = self._arrays
        for name, columns in self._columns.items():
            if found[name].shape[1] > columns:
                found[name] = np.ascontiguousarray(found[name][:, :columns])
        return found


class BackwardProgram:
    """The records of one layer's backward pass, all its directions. Like a `ForwardProgram` it does not depend on the arrays
    of one call, and whoever takes one from the pool has it alone."""

    def __init__(self, weights: Sequence[Weights], steps: int, batch: int, schedule: Schedule, products: Products) -> None:
        spec = weights[0].spec
        cell = cell_of(spec)
        self._products = products
        self._weights: Sequence[Weights] = ()
        self._directions = len(weights)
        self.records = records = Records(spec, len(weights), schedule.parts, schedule.threads)
        step_row = records.blocks * spec.gates * records.lanes + VECTOR_BYTES // records.item
        for d, direction in enumerate(weights):
            records.sizes(d, direction.spec, steps, batch)
            records.set(d, d_row=step_row * records.item)
            records.set(d, dh=records.allocate(batch * records.row))
            records.set(d, step=records.allocate(2 * batch * step_row), step_row=step_row * records.item)
            records.set(
                d,
                step_plane=batch * step_row * records.item,
                step_n=len(cell.products[0].h_gates) * records.blocks * VECTOR_BYTES,
            )
            for name in (*cell.planes_back, *(("dm", "dh_step") if spec.proj_size else ())):
                records.set(d, **{name: records.allocate(batch * records.row)})
            records.set(d, recurrent=records.hold(np.array(cell.recurrent, np.int64)))
        for share, part in zip(records.shares, schedule.parts, strict=True):
            share["kernel"] = records.address_of(backward)
            blocking = backward_blocking(spec, part, products, target())
            records.panels(share, NR_BACK)
            records.blocking(share, part, blocking)
            if products.recurrent:
                share["slots"] = records.allocate(rows_room(blocking.rows, records.blocks * spec.gates) // records.item)
        kernels = dict(zip(PHASE_KERNELS, steps_of(spec).step_back, strict=False))
        if products.recurrent:
            kernels["recurrent_kernel"] = amx_recurrent_product
        records.kernels(kernels)
        records.tiles()
        records.tiles(transposed=True)
        self._large = _large_products(records, len(weights), steps * batch, schedule.threads, products.large)
        self._lay_out_scratch(steps * batch, step_row)
        self.use(weights)

    def _lay_out_scratch(self, rows: int, step_row: int) -> None:
        """Lays out what a direction's steps leave for its products, `rows` rows (t, b) of each: the gates' gradients; those of
        W_hn h + b_hn (dq) or the r * h that W_hn was fed; those of a projected h."""
        records, spec, row = self.records, self.records.spec, self.records.row * self.records.item
        sizes = {"d_gates": rows * step_row * records.item}
        if name := cell_of(spec).left_by_step:
            sizes[name] = rows * row
        if spec.proj_size:
            sizes["saved_dh"] = rows * row
        self._offsets, self._bytes = side_by_side(sizes)
        self._scratch: Array | None = None
        if self._directions * self._bytes <= SCRATCH_BYTES:
            self._scratch = aligned(self._directions * self._bytes // records.item, spec.dtype)
            records.hold(self._scratch)
            self._bind_scratch(self._scratch)

    @property
    def bytes(self) -> int:
        """Bytes that the records hold."""
        return self.records.bytes + self._large.bytes

    def use(self, weights: Sequence[Weights]) -> None:
        """Runs on these weights from now on, other values of the same shapes."""
        if weights is not self._weights:
            self._weights = weights
            for d, direction in enumerate(weights):
                self.records.set(d, **direction.backward(self._products).addresses)

    def run(self, *, ragged: bool) -> None:
        """Makes all gradients. ragged: rows past a sequence's end count as zeros."""
        records, memory = self.records, self._scratch
        if memory is None:
            memory = ARRAYS.take_array(self._directions * self._bytes // records.item, records.spec.dtype)
            self._bind_scratch(memory)
        if ragged:
            memory[:] = 0
        records.run()
        self._large.run()
        if memory is not self._scratch:
            ARRAYS.give_arrays(memory)

    def _bind_scratch(self, memory: Array) -> None:
        """Has the steps write what the products read into `memory`."""
        start = address(memory)
        for d in range(self._directions):
            self.records.set(d, **{name: start + d * self._bytes + offset for name, offset in self._offsets.items()})


def _large_products(like: Records, directions: int, rows: int, threads: int, amx: bool) -> Records:
    """Makes the records of dW, db and dx, of `rows` rows (t, b), over the jobs of records `like`, which run back through time
    first."""
    spec = like.spec
    gates = spec.gates * like.blocks
    weight_kernel = amx_weight_gradients if amx else all_weight_gradients
    input_kernel = amx_input_gradients if amx else input_gradients
    units, stretches, outputs = cut(like.blocks, threads), cut(rows, threads), cut(like.out_blocks, threads)
    weight = [Part(d, p, 0, 0, units[p], units[p + 1]) for p in range(threads) for d in range(directions)]
    inputs = [Part(d, p, stretches[p], stretches[p + 1], 0, 0) for p in range(threads) for d in range(directions)]
    tasks = [*((part, weight_kernel) for part in weight), *((part, input_kernel) for part in inputs)]
    if spec.peepholes or spec.proj_size:
        tasks += [(part, option_gradients) for part in weight]
    tasks.sort(key=lambda task: task[0].thread)
    records = Records(spec, directions, [part for part, _ in tasks], threads, like.jobs)
    for share, (part, kernel) in zip(records.shares, tasks, strict=True):
        share["kernel"] = records.address_of(kernel)
        if kernel is not input_kernel:
            mine = part.panel_end - part.panel_begin
            room = max(scratch(mine) * VECTOR_BYTES, gradients_room(mine) if amx else 0)
        else:
            room = rows_room(part.row_end - part.row_begin, gates) if amx else NR_BACK * PRODUCT_ROWS * VECTOR_BYTES
        share["slots"] = records.allocate(room // like.item)
        share["row_cap"] = PRODUCT_ROWS
        share["out_begin"], share["out_end"] = outputs[part.thread], outputs[part.thread + 1]
    return records
