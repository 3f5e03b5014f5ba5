"""Whether the backward pass of a layer fits on the chip, and how: as plan.py does for the forward pass."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...spec import Spec
from ..device import Device, Limits
from .geometry_backward import BackwardGeometry
from .operand import FLOAT32, operand_of
from .plan import REGISTER_WEIGHTS, STRAIGHT_TILES, Refusal, capacity, not_resident, straight_tiles, unsupported
from .tile import WARP

LEAST_PRODUCT = 32  # gate gradients that make a block worth its share of the exchange


@dataclass(frozen=True)
class BackwardPlan:
    geometry: BackwardGeometry
    slices: int  # of the batch
    slice_rows: int

    @property
    def blocks(self) -> int:
        return self.geometry.blocks * self.slices

    def __str__(self) -> str:
        g = self.geometry
        work = f"{g.units} units and {self.slice_rows} rows a block"
        return f"persistent: {g.blocks} x {self.slices} blocks of {g.threads} threads, {work}"


def plan_backward(spec: Spec, batch: int, device: Device) -> BackwardPlan | Refusal:
    """How `backward` would run on the device, or why it cannot."""
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
        lanes=2,
        tiles=1,
        turns=1,
        reverse=spec.reverse,
        async_copies=limits.compute_capability >= (8, 0),
        fast_math=spec.fast_math,
    )
    largest = largest_block(base, limits)
    if largest is None or largest.blocks > limits.multiprocessors:
        return Refusal(capacity(base, largest.units if largest else 0, limits))
    chosen = over_batch(largest, batch, limits)
    if isinstance(chosen, Refusal):
        return chosen
    return not_resident(chosen, device) or chosen


def with_lanes(g: BackwardGeometry) -> Iterator[BackwardGeometry]:
    """Fewer lanes to a column are fewer additions between lanes, more weights in each."""
    for lanes in (2, 4, 8, 16, 32):
        shared = replace(g, lanes=lanes)
        room = next((weights for warps, weights in REGISTER_WEIGHTS.items() if shared.warps <= warps), 0)
        if shared.registers <= room:
            yield shared


def largest_block(base: BackwardGeometry, limits: Limits) -> BackwardGeometry | None:
    """That with the most units: a whole layer needs no barrier, and fewer blocks exchange less."""
    most = max(weights * warps * WARP for warps, weights in REGISTER_WEIGHTS.items()) // (base.gates * base.hidden)
    for units in range(min(base.hidden, most), 0, -1):
        for g in with_lanes(replace(base, units=units)):
            if g.shared_bytes <= limits.shared_per_block:
                return g
    return None


def over_batch(g: BackwardGeometry, batch: int, limits: Limits) -> BackwardPlan | Refusal:
    if g.blocks == 1:
        return alone(g, batch, limits)
    slices = max(min(limits.multiprocessors // g.blocks, -(-batch // 4)), 1)
    slice_rows = -(-batch // slices)
    slices = -(-batch // slice_rows)
    tiles = straight_tiles(-(-slice_rows // 4), limits)
    if tiles is not None:
        units = max(-(-g.hidden // (limits.multiprocessors // slices)), LEAST_PRODUCT // g.gates)
        for more in range(min(units, g.units), g.units + 1):
            for cut in with_lanes(replace(g, units=more, tiles=tiles[0], turns=tiles[1])):
                if cut.blocks * slices <= limits.multiprocessors and cut.shared_bytes <= limits.shared_per_block:
                    return BackwardPlan(cut, slices, slice_rows)
    return Refusal(f"{slice_rows} rows of the batch in each block, more than its kernel can take on {limits.name}")


def alone(g: BackwardGeometry, batch: int, limits: Limits) -> BackwardPlan:
    """Blocks that hold the whole layer, each with rows of its own: few, while there are multiprocessors for them."""
    best = g
    for tiles in (2, STRAIGHT_TILES):
        more = replace(g, tiles=tiles)
        if -(-batch // best.rows) > limits.multiprocessors and more.shared_bytes <= limits.shared_per_block:
            best = more
    return BackwardPlan(best, -(-batch // best.rows), min(best.rows, batch))
