"""The plan of a forward pass on the chip, if the layer fits there: from the device's own figures, not from a table of devices.

One block, if it can hold all weights: rows of the batch go to blocks that never meet. Else a block for every few units, one a
multiprocessor, that meet at each step; what multiprocessors remain share out the batch.
The order in which k is summed (lanes, splits) follows from the layer and the device, not from the batch: a row's bits do not
depend on the rows beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...spec import Spec
from ..host.device import Device, Limits
from ..intrinsics.operand import operand_of
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
from .geometry_forward import ForwardGeometry

REGISTER_WEIGHTS_TENSOR = {8: 128, 12: 88, 16: 32}  # beside 8 sums
REGISTER_WEIGHTS_7 = {8: 48, 12: 32}  # before 8.0 the compiler takes the forward kernels' shuffles apart
REGISTER_WEIGHTS_7_TENSOR = {8: 96, 12: 64, 16: 32}  # which tensor cores do without
LEAST_SPLIT, LEAST_SPLIT_TENSOR = 128, 32  # k of a warp, in words


@dataclass(frozen=True)
class ForwardPlan(Plan):
    geometry: ForwardGeometry

    def __str__(self) -> str:
        g = self.geometry
        rows, cores = f"{self.slice_rows} rows a block", f", {g.operand.name} on tensor cores" if g.operand.tensor else ""
        if g.alone:
            return f"persistent: {self.slices} blocks of {g.threads} threads, all weights in each, {rows}{cores}"
        return f"persistent: {g.blocks} x {self.slices} blocks of {g.threads} threads, {g.units} units and {rows}{cores}"


def fit_forward(spec: Spec, batch: int, device: Device) -> ForwardPlan | Refusal:
    """How the forward pass would run on the device, or why it cannot."""
    limits = device.limits
    reason = unsupported(spec, batch, limits)
    if reason:
        return Refusal(reason)
    operand = operand_of(spec, limits)
    base = ForwardGeometry(
        cell=spec.cell,
        hidden=spec.hidden_size,
        units=spec.hidden_size,
        lanes=8,
        splits=1,
        held=1,
        tiles=1,
        turns=1,
        reverse=spec.reverse,
        aligned=spec.hidden_size * operand.item % 16 == 0,
        async_copies=limits.compute_capability >= (8, 0),
        fast_math=spec.fast_math,
        operand=operand,
    )
    chosen = (None if operand.tensor else one_block(base, batch, limits)) or many_blocks(base, batch, limits)
    if isinstance(chosen, Refusal):
        return chosen
    return not_resident(chosen, device) or chosen


def one_block(base: ForwardGeometry, batch: int, limits: Limits) -> ForwardPlan | None:
    """8 lanes share k: a warp holds many rows, and the sums take few shuffles."""
    held = held_quads(base, room_for_weights(register_weights(base, limits), base.warps))
    if not held:
        return None
    for tiles in (1, 2, STRAIGHT_TILES):
        whole = replace(base, held=held, tiles=tiles)
        slices = -(-batch // whole.rows)
        if whole.shared_bytes <= limits.shared_per_block and (slices <= limits.multiprocessors or tiles == STRAIGHT_TILES):
            return ForwardPlan(whole, slices, min(whole.rows, batch))
    return None


def many_blocks(base: ForwardGeometry, batch: int, limits: Limits) -> ForwardPlan | Refusal:
    base = replace(base, lanes=lanes_for(base.hidden))
    largest = largest_share(base, limits)
    if largest is None:
        most = max((g.units for g in shares(base, limits)), default=0)
        return too_large(base, base.operand.item, most, limits, base.operand.name)
    slices, slice_rows = sliced(batch, largest.blocks, base.tile.batch, limits)
    tiles = straight_tiles(-(-slice_rows // largest.tile.batch), limits)
    if tiles is None:
        return too_many_rows(slice_rows, limits)
    g = replace(largest, tiles=tiles[0], turns=tiles[1])
    if g.shared_bytes > limits.shared_per_block:
        return too_many_rows(slice_rows, limits)
    return ForwardPlan(g if g.alone else with_units(g, limits.multiprocessors // slices), slices, slice_rows)


def register_weights(g: ForwardGeometry, limits: Limits) -> dict[int, int]:
    if limits.compute_capability >= (8, 0):
        return REGISTER_WEIGHTS_TENSOR if g.operand.tensor else REGISTER_WEIGHTS
    return REGISTER_WEIGHTS_7_TENSOR if g.operand.tensor else REGISTER_WEIGHTS_7


def lanes_for(hidden: int) -> int:
    lanes = 8
    while lanes < 32 and 4 * lanes < hidden:
        lanes *= 2
    return lanes


def held_quads(g: ForwardGeometry, room: int) -> int:
    """How many quads registers have room for; on tensor cores all or none."""
    if g.operand.tensor:
        return g.quads if g.registers <= room else 0
    return min(g.quads, room // (g.num_products * 4 * g.tile.rows))


def shares(base: ForwardGeometry, limits: Limits) -> Iterator[ForwardGeometry]:
    """The most units that a block can hold, for each number of warps and of shares of k."""
    least = LEAST_SPLIT_TENSOR * base.operand.per_word if base.operand.tensor else LEAST_SPLIT
    for splits in range(1, -(-base.hidden // least) + 1):
        for warps, room in register_weights(base, limits).items():
            units = (warps // splits) * base.num_products * base.tile.warp_rows // base.num_gates
            g = replace(base, splits=splits, units=min(units, base.hidden))
            held = held_quads(g, room)
            if warps % splits == 0 and units and held:
                g = replace(g, held=held)
                if g.shared_bytes <= limits.shared_per_block:
                    yield g


def largest_share(base: ForwardGeometry, limits: Limits) -> ForwardGeometry | None:
    """All in registers if the device can hold the layer so, else with as little as possible in shared memory."""
    return min((g for g in shares(base, limits) if g.blocks <= limits.multiprocessors), key=cost, default=None)


def cost(g: ForwardGeometry) -> tuple[int, int]:
    """Weights in shared memory must be read at each step; fewer blocks meet sooner and leave more room for the batch."""
    return g.layout.h, g.blocks * g.splits


def with_units(g: ForwardGeometry, blocks: int) -> ForwardGeometry:
    """The same work on as many blocks as there are, but not less than four warps each."""
    fewest = 4 * g.num_products * g.tile.warp_rows // (g.splits * g.num_gates)
    return replace(g, units=min(max(-(-g.hidden // blocks), fewest), g.units))
