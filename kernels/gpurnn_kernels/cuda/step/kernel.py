# mypy: disable-error-code="no-untyped-def"
"""One step of a layer for a few rows in one kernel, matrix-vector products and all: what a stream launches.

A warp makes the gates of one unit for all rows: its lanes share out k, the weights are read once. Nothing but arguments
changes from step to step and nothing is allocated, so that a step can be captured into a CUDA graph. A reset-before GRU
takes two kernels: every unit of r must be known before n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from ..block import COLUMNS, ROWS, THREADS
from ..compiler import cuda, inlined, types
from ..host.device import Kernel
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.lanes import lanes_of
from ..intrinsics.traced import traced_cells
from ..intrinsics.warp import add_products, load_apart, warp_sums
from ..records import Number, Wide, float_type, record_type

MOST_ROWS = 8  # of which a warp holds the sums: 4 gates x 8 rows are 32 registers
WARPS = ROWS  # units of a block
_RESIDENT = 2

int32 = types.int32


class OneKernel(NamedTuple):
    """How one kernel makes a step of a cell. A sum holds a gate's products, or a part of them that stays apart."""

    name: str
    end: Callable[["StepForm"], Any]  # form -> end(a, sums, unit, at): h, from the cell's equations
    x_sums: tuple[int, ...]  # by gate, the sum to which its product with x goes
    h_sums: tuple[int, ...]  # by gate, the sum to which its product with h goes
    first: int = 0  # the first of these gates
    after_reset: bool = False  # `reset_kernel` has made r * h, which W_h multiplies in the place of h


@dataclass(frozen=True)
class StepForm:
    step: OneKernel
    inputs: int
    units: int
    batch: int
    storage: int  # bits of an element of the layer's dtype
    fast_math: bool

    @property
    def bits(self) -> int:
        """Bits of what is computed in."""
        return max(self.storage, 32)

    @property
    def cells(self) -> Any:
        return traced_cells(FAST if self.fast_math and self.storage != 64 else ACCURATE)

    def kernel(self, name: str, function: Callable[..., None], record: Any, varying: int) -> Kernel:
        """Makes a kernel of function(record, pointers ..); varying: how many pointers."""
        signature = (record_type(record, self.storage), *[types.CPointer(float_type(self.storage))] * varying)
        fast = "_fast_math" if self.fast_math else ""
        full = f"{name}_{self.step.name}_float{self.storage}_i{self.inputs}_h{self.units}_b{self.batch}{fast}"
        return Kernel(full, function, signature, THREADS, _RESIDENT)


@inlined
def unit_and_lane():
    """Returns the warp's unit, and the number of this thread's lane."""
    thread = cuda.threadIdx.x
    return int32(cuda.blockIdx.x * WARPS + (thread >> 5)), int32(thread & 31)


@cache
def _times(form: StepForm, k: int, first: int, sums: tuple[int, ...]) -> Any:
    """Makes add(totals, weights, vectors, unit, lane) -> totals with the products of a lane's part of k added.

    Row gate * H + unit of the weights (G*H, k), for gates from `first` on, times each row of vectors (B, k), to the sum of
    each gate.
    """
    K, FIRST, GATE = k, first * form.units, form.units * k
    load_gates, load_rows = load_apart(len(sums), form.bits), load_apart(form.batch, form.bits)
    add_all = add_products(sums, form.batch, form.bits)

    @inlined
    def add(totals, weights, vectors, unit, lane):
        row, i = int32((FIRST + unit) * K), lane
        while i < K:  # a range would be unrolled whole, K being known
            totals = add_all(totals, load_gates(weights, row + i, GATE), load_rows(vectors, i, K))
            i = int32(i + COLUMNS)
        return totals

    return add


class StepArguments(NamedTuple):
    W_x: Number  # (G*H, I)
    W_h: Number  # (G*H, H)
    bias: Wide  # (G*H,)
    b_hn: Wide  # (H,), reset after
    h: Number  # (B, H)
    c: Number  # (B, H), LSTM
    z_: Wide  # (B, H), reset before: pre-activated z
    rh: Number  # (B, H), reset before: r * h
    h_new: Number  # (B, H)
    c_new: Number  # (B, H), LSTM


def lstm_end(form: StepForm) -> Any:
    H, (load, store, _), lstm_cell = form.units, lanes_of(1, form.bits), form.cells.lstm_cell

    @inlined
    def end(a, sums, unit, at):
        f, i, o, g = sums
        f_, i_ = f + load(a.bias, unit), i + load(a.bias, unit + H)
        o_, g_ = o + load(a.bias, unit + 2 * H), g + load(a.bias, unit + 3 * H)
        h, c = lstm_cell(f_, i_, o_, g_, load(a.c, at))
        store(a.c_new, at, c)
        return h

    return end


def gru_after_end(form: StepForm) -> Any:
    H, (load, _, _) = form.units, lanes_of(1, form.bits)
    gru_candidate, gru_update = form.cells.gru_candidate, form.cells.gru_update

    @inlined
    def end(a, sums, unit, at):
        z, r, n, q = sums
        n_ = gru_candidate(r + load(a.bias, unit + H), q + load(a.b_hn, unit), n + load(a.bias, unit + 2 * H))
        return gru_update(z + load(a.bias, unit), n_, load(a.h, at))

    return end


def gru_before_end(form: StepForm) -> Any:
    H, (load, _, _), gru_update = form.units, lanes_of(1, form.bits), form.cells.gru_update

    @inlined
    def end(a, sums, unit, at):
        return gru_update(load(a.z_, at), sums[0] + load(a.bias, unit + 2 * H), load(a.h, at))

    return end


@cache
def step_kernel(form: StepForm) -> Kernel:
    """Makes a step, or its second half, after `reset_kernel`."""
    H, BATCH, (_, _, x_sums, h_sums, first, AFTER_RESET) = form.units, form.batch, form.step
    zeros, of_row = warp_sums(max(h_sums) + 1, BATCH, form.bits)
    add_x, add_h = _times(form, form.inputs, first, x_sums), _times(form, H, first, h_sums)
    (_, store, _), end = lanes_of(1, form.bits), form.step.end(form)

    def step(
        a,
        x,  # (B, I)
        y,  # (B, H)
    ):
        unit, lane = unit_and_lane()
        if unit >= H:
            return
        sums = add_x(zeros(), a.W_x, x, unit, lane)
        sums = of_row(add_h(sums, a.W_h, a.rh if AFTER_RESET else a.h, unit, lane), lane)
        if lane >= BATCH:
            return
        at = int32(lane * H + unit)
        h = end(a, sums, unit, at)
        store(a.h_new, at, h)
        store(y, at, h)

    return form.kernel("step", step, StepArguments, 2)


class ResetArguments(NamedTuple):
    W_x: Number  # (3H, I)
    W_h: Number  # (3H, H)
    bias: Wide  # (3H,)
    h: Number  # (B, H)
    z_: Wide  # (B, H): pre-activated z
    rh: Number  # (B, H): r * h


@cache
def reset_kernel(form: StepForm) -> Kernel:
    """Reset before, the first half of a step: pre-activated z, and r * h."""
    H, BATCH, of_gates = form.units, form.batch, (0, 1)
    zeros, of_row = warp_sums(2, BATCH, form.bits)
    add_x, add_h = _times(form, form.inputs, 0, of_gates), _times(form, H, 0, of_gates)
    load, store, _ = lanes_of(1, form.bits)
    gru_reset = form.cells.gru_reset

    def reset_step(
        a,
        x,  # (B, I)
    ):
        unit, lane = unit_and_lane()
        if unit >= H:
            return
        z, r = of_row(add_h(add_x(zeros(), a.W_x, x, unit, lane), a.W_h, a.h, unit, lane), lane)
        if lane < BATCH:
            at = int32(lane * H + unit)
            store(a.z_, at, z + load(a.bias, unit))
            store(a.rh, at, gru_reset(r + load(a.bias, unit + H), load(a.h, at)))

    return form.kernel("reset", reset_step, ResetArguments, 1)
