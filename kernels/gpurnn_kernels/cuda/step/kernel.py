"""One step of a layer for a few rows in one kernel, matrix-vector products and all: what a stream launches.

A warp makes the gates of one unit for all rows: its lanes share out k, the weights are read once. Nothing but arguments
changes from step to step and nothing is allocated, so that a step can be captured into a CUDA graph. A reset-before GRU
takes two kernels: every unit of r must be known before n.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from numba.core import cgutils

from ...cells import make_cells
from ..host.device import Kernel
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.emission import COLUMNS, ROWS, Address, Code, kernel
from ..intrinsics.llvm import ir
from ..intrinsics.number import INT32, INT64, Value

MOST_ROWS = 8  # of which a warp holds the sums: 4 gates x 8 rows are 32 registers
WARPS = ROWS  # units of a block
_RESIDENT = 2
_ALL_LANES = -1


@dataclass(frozen=True)
class StepForm:
    cell: str
    inputs: int
    units: int
    batch: int
    storage: int
    lanes: int  # elements of k that a load takes
    fast_math: bool


class _Products:
    """Sums over k of rows of weights times rows of a batch, shared out over a warp."""

    def __init__(self, k: Code, form: StepForm) -> None:
        self._k, self._form = k, form
        self.sums: dict[tuple[int, int], Any] = {}  # (gate, row) -> where

    def start(self, gate: int) -> None:
        for row in range(self._form.batch):
            self.sums[gate, row] = cgutils.alloca_once_value(self._k.builder, ir.Constant(self._k.type, 0.0))

    def add(self, weights: Any, width: int, rows: Sequence[tuple[int, int]], unit: Any, vectors: Any) -> None:
        """weights (.., width), vectors (B, width); rows: which gate's sum takes which block of H rows."""
        k, b, form = self._k, self._k.builder, self._form
        stride = COLUMNS * form.lanes
        first = b.mul(b.and_(k.register("tid.x"), INT32(COLUMNS - 1)), INT32(form.lanes))
        with cgutils.for_range_slice(b, first, INT32(width), INT32(stride), INT32) as (index, _):
            given = [k.load(k.at(vectors, INT32(row), width, index), form.lanes) for row in range(form.batch)]
            for gate, block in rows:
                of_unit = b.add(unit, INT32(block * form.units))
                w = k.load(k.at(weights, of_unit, width, index), form.lanes)
                for row in range(form.batch):
                    total = Value(k, b.load(self.sums[gate, row]))
                    for i in range(form.lanes):
                        total = k.fma(w[i], given[row][i], total)
                    b.store(total.value, self.sums[gate, row])

    def of_lane(self, gate: int) -> Value:
        """The whole warp's sum for the row whose number is the lane's."""
        k, b = self._k, self._k.builder
        lane = b.and_(k.register("tid.x"), INT32(COLUMNS - 1))
        found = k.constant(0.0).value
        for row in range(self._form.batch):
            total = Value(k, b.load(self.sums[gate, row]))
            for distance in (16, 8, 4, 2, 1):
                total = total + _from_lane(k, total, distance)
            found = b.select(b.icmp_unsigned("==", lane, INT32(row)), total.value, found)
        return Value(k, found)


def _from_lane(k: Code, value: Value, distance: int) -> Value:
    """What the lane that differs in one bit holds."""

    def shuffled(word: Any) -> Any:
        kind = ir.FunctionType(INT32, [INT32] * 4)
        function = cgutils.get_or_insert_function(k.builder.module, kind, "llvm.nvvm.shfl.sync.bfly.i32")
        return k.builder.call(function, [INT32(_ALL_LANES), word, INT32(distance), INT32(31)])

    b = k.builder
    if k.bits == 32:
        return Value(k, b.bitcast(shuffled(b.bitcast(value.value, INT32)), k.type))
    word = b.bitcast(value.value, INT64)
    low, high = (shuffled(b.trunc(part, INT32)) for part in (word, b.lshr(word, INT64(32))))
    return Value(k, b.bitcast(b.or_(b.zext(low, INT64), b.shl(b.zext(high, INT64), INT64(32))), k.type))


def _for_units(
    k: Code, form: StepForm, sums: Callable[[Any], _Products], cell: Callable[[Any, Any, dict[int, Value]], None]
) -> None:
    """`sums(unit)` in every lane of a warp, then `cell` in the lane of each row, for its row and unit."""
    b = k.builder
    thread = k.register("tid.x")
    unit = b.add(b.mul(k.register("ctaid.x"), INT32(WARPS)), b.lshr(thread, INT32(5)))
    lane = b.and_(thread, INT32(COLUMNS - 1))
    with b.if_then(b.icmp_unsigned("<", unit, INT32(form.units))):
        products = sums(unit)
        gathered = {gate: products.of_lane(gate) for gate in {gate for gate, _ in products.sums}}
        with b.if_then(b.icmp_unsigned("<", lane, INT32(form.batch))):
            cell(lane, unit, gathered)


@cache
def step_kernel(form: StepForm) -> Kernel:
    """LSTM and reset-after GRU: all of a step. Reset-before GRU: its second half, after `reset_kernel`."""
    H, cell_name = form.units, form.cell
    cells = make_cells(FAST if form.fast_math and form.storage != 64 else ACCURATE)
    gates = {"lstm": 4, "gru_after": 3, "gru_before": 3}[cell_name]
    X, Q = 0, 4  # sums: X + gate; a reset-after GRU's W_hn h apart

    def step(
        k: Code,
        W_x: Address,  # (G*H, I)
        W_h: Address,  # (G*H, H)
        bias: Address,  # (G*H,)
        b_hn: Address,  # (H,), reset after
        h: Address,  # (B, H)
        c: Address,  # (B, H), LSTM
        z_: Address,  # (B, H), reset before: pre-activated z
        rh: Address,  # (B, H), reset before: r * h
        h_new: Address,
        c_new: Address,
        x: Address,  # (B, I)
        y: Address,  # (B, H)
    ) -> None:
        def sums(unit: Any) -> _Products:
            products = _Products(k, form)
            if cell_name == "gru_before":
                products.start(2)
                products.add(W_x, form.inputs, [(2, 2)], unit, x)
                products.add(W_h, H, [(2, 2)], unit, rh)
                return products
            for gate in range(gates):
                products.start(X + gate)
            products.add(W_x, form.inputs, [(X + gate, gate) for gate in range(gates)], unit, x)
            of_h = [(X + gate, gate) for gate in range(gates)]
            if cell_name == "gru_after":
                products.start(Q)
                of_h[2] = (Q, 2)
            products.add(W_h, H, of_h, unit, h)
            return products

        def cell(row: Any, unit: Any, total: Any) -> None:
            def load(address: Any) -> Value:
                return k.load(k.at(address, row, H, unit), 1)[0]

            def of_unit(address: Any, gate: int = 0) -> Value:
                return k.wide.load(k.wide.at(address, row, 0, unit, gate * H), 1)[0]

            sums = {gate: value + of_unit(bias, gate) for gate, value in total.items() if gate < gates}
            if cell_name == "lstm":
                made, c_made = cells.lstm_cell(*(sums[gate] for gate in range(4)), load(c))
                k.store(k.at(c_new, row, H, unit), [c_made])
            elif cell_name == "gru_after":
                n_ = cells.gru_candidate(sums[1], total[Q] + of_unit(b_hn), sums[2])
                made = cells.gru_update(sums[0], n_, load(h))
            else:
                made = cells.gru_update(k.wide.load(k.wide.at(z_, row, H, unit), 1)[0], sums[2], load(h))
            k.store(k.at(h_new, row, H, unit), [made])
            k.store(k.at(y, row, H, unit), [made])

        _for_units(k, form, sums, cell)

    return kernel(step, form.storage, _name("step", form), _RESIDENT)


@cache
def reset_kernel(form: StepForm) -> Kernel:
    """Reset before, the first half of a step: pre-activated z, and r * h."""
    H = form.units
    cells = make_cells(FAST if form.fast_math and form.storage != 64 else ACCURATE)

    def reset_step(
        k: Code, W_x: Address, W_h: Address, bias: Address, h: Address, z_: Address, rh: Address, x: Address
    ) -> None:
        def sums(unit: Any) -> _Products:
            products = _Products(k, form)
            both = [(0, 0), (1, 1)]
            for gate, _ in both:
                products.start(gate)
            products.add(W_x, form.inputs, both, unit, x)
            products.add(W_h, H, both, unit, h)
            return products

        def cell(row: Any, unit: Any, total: Any) -> None:
            z_made, r_ = (total[gate] + k.wide.load(k.wide.at(bias, row, 0, unit, gate * H), 1)[0] for gate in range(2))
            before = k.load(k.at(h, row, H, unit), 1)[0]
            k.wide.store(k.wide.at(z_, row, H, unit), [z_made])
            k.store(k.at(rh, row, H, unit), [cells.gru_reset(r_, before)])

        _for_units(k, form, sums, cell)

    return kernel(reset_step, form.storage, _name("reset", form), _RESIDENT)


def _name(what: str, form: StepForm) -> str:
    fast = "_fast_math" if form.fast_math else ""
    return f"{what}_{form.cell}_float{form.storage}_i{form.inputs}_h{form.units}_b{form.batch}_x{form.lanes}{fast}"
