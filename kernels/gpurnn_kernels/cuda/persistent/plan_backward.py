"""The plan of a backward pass on the chip, if the layer fits there; plan_forward.py is its twin.

Registers hold the weights; of a layer too large for those of all multiprocessors together, shared memory holds the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...spec import Spec
from ..host.device import Device, Limits
from ..intrinsics.operand import FLOAT32, operand_of
from ..intrinsics.tile import WARP
from .budget import (
    REGISTER_WEIGHTS,
    STRAIGHT_TILES,
    Plan,
    Refusal,
    not_resident,
    room_for_weights,
    sliced,
    straight_tiles,
    too_large,
    too_many_rows,
    unsupported,
)
from .geometry_backward import BackwardGeometry

LANES = (2, 4, 8, 16, 32)
LEAST_PRODUCT = 32  # gate gradients that make a block worth its share of the exchange


@dataclass(frozen=True)
class BackwardPlan(Plan):
    geometry: BackwardGeometry

    def __str__(self) -> str:
        g = self.geometry
        work = f"{g.units} units and {self.slice_rows} rows a block"
        return f"persistent: {g.blocks} x {self.slices} blocks of {g.threads} threads, {work}"


def fit_backward(spec: Spec, batch: int, device: Device) -> BackwardPlan | Refusal:
    """How the backward pass would run on the device, or why it cannot."""
    limits = device.limits
    reason = unsupported(spec, batch, limits)
    operand = operand_of(spec, limits)
    if operand is not FLOAT32:
        reason = reason or f"no persistent backward kernel has products in {operand.name}"
    if reason:
        return Refusal(reason)
    base = BackwardGeometry(
        cell=spec.cell,
        hidden=spec.hidden_size,
        units=spec.hidden_size,
        lanes=LANES[0],
        held=1,
        tiles=1,
        turns=1,
        reverse=spec.reverse,
        async_copies=limits.compute_capability >= (8, 0),
        fast_math=spec.fast_math,
    )
    largest = largest_block(base, limits)
    if largest is not None and largest.blocks <= limits.multiprocessors:
        chosen = over_batch(largest, batch, limits)
    else:
        chosen = spread(base, batch, limits)
    if isinstance(chosen, Refusal):
        return chosen
    return not_resident(chosen, device) or chosen


def register_room(g: BackwardGeometry) -> int:
    """Words of weights that a thread can hold; before compute capability 8.0 too, these kernels' shuffles stay together."""
    return room_for_weights(REGISTER_WEIGHTS, g.warps)


def with_lanes(g: BackwardGeometry) -> Iterator[BackwardGeometry]:
    """All weights in registers. Fewer lanes to a column are fewer additions between lanes, more weights in each."""
    for lanes in LANES:
        whole = replace(g, lanes=lanes)
        whole = replace(whole, held=max(tile.quads for tile in whole.products))
        if whole.registers <= register_room(whole):
            yield whole


def largest_block(base: BackwardGeometry, limits: Limits) -> BackwardGeometry | None:
    """The cut with the most units: a whole layer needs no barrier, and fewer blocks exchange less."""
    most = max(weights * warps * WARP for warps, weights in REGISTER_WEIGHTS.items()) // (base.num_gates * base.hidden)
    for units in range(min(base.hidden, most), 0, -1):
        for g in with_lanes(replace(base, units=units)):
            if g.shared_bytes <= limits.shared_per_block:
                return g
    return None


def with_shared_weights(base: BackwardGeometry, limits: Limits) -> BackwardGeometry | None:
    """Puts what registers do not hold into shared memory, read at each step: the cut that leaves the least there."""
    cuts = []
    for lanes in LANES:
        g = replace(base, lanes=lanes)
        g = replace(g, held=register_room(g) // sum(4 * tile.rows for tile in g.products))
        if g.held and g.shared_bytes <= limits.shared_per_block:
            cuts.append(g)
    return min(cuts, key=lambda g: g.layout.operand, default=None)


def spread(base: BackwardGeometry, batch: int, limits: Limits) -> BackwardPlan | Refusal:
    """A layer too large for registers: the multiprocessors share out its units, and each block has all rows.

    Units and lanes, and so the order of sums, follow from the layer and the device, not from the batch.
    """
    units = -(-base.hidden // limits.multiprocessors)
    g = with_shared_weights(replace(base, units=units), limits)
    if g is None:
        fewer = (n for n in range(units - 1, 0, -1) if with_shared_weights(replace(base, units=n), limits))
        return too_large(base, base.operand.item, next(fewer, 0), limits, base.operand.name)
    tiles = straight_tiles(-(-batch // 4), limits)
    if tiles is not None:
        g = replace(g, tiles=tiles[0], turns=tiles[1])
        if g.shared_bytes <= limits.shared_per_block:
            return BackwardPlan(g, 1, batch)
    return too_many_rows(batch, limits)


def over_batch(g: BackwardGeometry, batch: int, limits: Limits) -> BackwardPlan | Refusal:
    if g.alone:
        return alone(g, batch, limits)
    slices, slice_rows = sliced(batch, g.blocks, g.products[0].batch, limits)
    tiles = straight_tiles(-(-slice_rows // 4), limits)
    if tiles is not None:
        units = max(-(-g.hidden // (limits.multiprocessors // slices)), LEAST_PRODUCT // g.num_gates)
        for more in range(min(units, g.units), g.units + 1):
            for cut in with_lanes(replace(g, units=more, tiles=tiles[0], turns=tiles[1])):
                if cut.blocks * slices <= limits.multiprocessors and cut.shared_bytes <= limits.shared_per_block:
                    return BackwardPlan(cut, slices, slice_rows)
    return too_many_rows(slice_rows, limits)


def alone(g: BackwardGeometry, batch: int, limits: Limits) -> BackwardPlan:
    """Blocks that hold the whole layer, each with rows of its own: few, while there are multiprocessors for them."""
    best = g
    for tiles in (2, STRAIGHT_TILES):
        more = replace(g, tiles=tiles)
        if -(-batch // best.rows) > limits.multiprocessors and more.shared_bytes <= limits.shared_per_block:
            best = more
    return BackwardPlan(best, -(-batch // best.rows), min(best.rows, batch))
