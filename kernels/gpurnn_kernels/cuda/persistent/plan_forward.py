"""Whether a layer fits on the chip, and how: from the device's own figures, never from a table of devices.

One block, if it can hold all weights: rows of the batch go to blocks that never meet. Else a block for every few units, one a
multiprocessor, that meet at each step; what multiprocessors remain share out the batch.
The order in which k is summed (lanes, splits) follows from the layer and the device, not from the batch: a row's bits do not
depend on the rows beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...spec import Spec
from ..host.device import Device, Limits
from ..intrinsics.operand import operand_of
from .geometry import Geometry
from .geometry_backward import BackwardGeometry
from .kernels import kernel_of

# Words of weights a thread can hold beside 32 sums and its indices, by the warps of a block: 65536 registers, 255 a thread
REGISTER_WEIGHTS = {8: 128, 12: 64, 16: 32}
REGISTER_WEIGHTS_TENSOR = {8: 128, 12: 88, 16: 32}  # beside 8 sums
REGISTER_WEIGHTS_7 = {8: 48, 12: 32}  # before 8.0 the compiler takes the forward kernels' shuffles apart
REGISTER_WEIGHTS_7_TENSOR = {8: 96, 12: 64, 16: 32}  # which tensor cores do without
STRAIGHT_TILES = 4  # longer code gains nothing
STRAIGHT_ONLY = 8  # tiles where the code cannot loop
LOOPS_FROM = (9, 0)  # before, the compiler takes shuffles in a loop apart, at the price of spills


@dataclass(frozen=True)
class Refusal:
    reason: str


@dataclass(frozen=True)
class Plan:
    geometry: Geometry
    slices: int  # of the batch
    slice_rows: int

    @property
    def blocks(self) -> int:
        return self.geometry.blocks * self.slices

    def __str__(self) -> str:
        g = self.geometry
        rows, cores = f"{self.slice_rows} rows a block", f", {g.operand.name} on tensor cores" if g.operand.tensor else ""
        if g.blocks == 1:
            return f"persistent: {self.slices} blocks of {g.threads} threads, all weights in each, {rows}{cores}"
        return f"persistent: {g.blocks} x {self.slices} blocks of {g.threads} threads, {g.units} units and {rows}{cores}"


def plan(spec: Spec, batch: int, device: Device) -> Plan | Refusal:
    """How `forward` would run on the device, or why it cannot."""
    limits = device.limits
    reason = unsupported(spec, batch, limits)
    if reason:
        return Refusal(reason)
    operand = operand_of(spec, limits)
    base = Geometry(
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


def not_resident(chosen: Any, device: Device) -> Refusal | None:
    """Why the device cannot hold the blocks of a plan, forward or backward: all at once, where they wait for each other."""
    g, limits = chosen.geometry, device.limits
    resident = device.resident_blocks(kernel_of(g), g.shared_bytes)
    if resident and (g.blocks == 1 or chosen.blocks <= resident * limits.multiprocessors):
        return None
    return Refusal(f"{chosen.blocks} blocks of {g.threads} threads cannot be resident on {limits.name}")


def unsupported(spec: Spec, batch: int, limits: Limits) -> str | None:
    if batch == 0:
        return "no rows"
    if spec.dtype == "float64":
        return "persistent kernels compute in float32, the layer is float64"
    if spec.precision is not None and limits.compute_capability < (8, 0):
        return f"tf32 starts with compute capability 8.0, {limits.name} has 7.5"
    if spec.proj_size or spec.peepholes or spec.clip is not None:
        return "no persistent kernel for projected, peephole or clipped layers"
    return None


def one_block(base: Geometry, batch: int, limits: Limits) -> Plan | None:
    """8 lanes share k: a warp holds many rows, and the sums take few shuffles."""
    for g in register_shares(base, limits):
        for tiles in (1, 2, STRAIGHT_TILES):
            whole = replace(g, tiles=tiles)
            slice_rows = whole.rows
            slices = -(-batch // slice_rows)
            if whole.shared_bytes <= limits.shared_per_block and (slices <= limits.multiprocessors or tiles == STRAIGHT_TILES):
                return Plan(whole, slices, min(slice_rows, batch))
    return None


def many_blocks(base: Geometry, batch: int, limits: Limits) -> Plan | Refusal:
    base = replace(base, lanes=lanes_for(base.hidden))
    largest = largest_share(base, limits)
    if largest is None:
        return Refusal(capacity(base, max((g.units for g in shares(base, limits)), default=0), limits))
    slices = max(min(limits.multiprocessors // largest.blocks, -(-batch // base.tile.batch)), 1)
    slice_rows = -(-batch // slices)
    slices = -(-batch // slice_rows)
    g = with_rows(largest, slice_rows, limits)
    if g is None or g.shared_bytes > limits.shared_per_block:
        return Refusal(f"{slice_rows} rows of the batch in each block, more than its kernel can take on {limits.name}")
    return Plan(g if g.blocks == 1 else with_units(g, limits.multiprocessors // slices), slices, slice_rows)


def register_weights(g: Geometry, limits: Limits) -> dict[int, int]:
    if limits.compute_capability >= (8, 0):
        return REGISTER_WEIGHTS_TENSOR if g.operand.tensor else REGISTER_WEIGHTS
    return REGISTER_WEIGHTS_7_TENSOR if g.operand.tensor else REGISTER_WEIGHTS_7


def lanes_for(hidden: int) -> int:
    lanes = 8
    while lanes < 32 and 4 * lanes < hidden:
        lanes *= 2
    return lanes


def register_shares(g: Geometry, limits: Limits) -> Iterator[Geometry]:
    """`g` with as many weights in registers as its number of warps leaves room for, if it has one."""
    room = next((weights for warps, weights in register_weights(g, limits).items() if g.warps <= warps), 0)
    held = held_quads(g, room)
    if held:
        yield replace(g, held=held)


def held_quads(g: Geometry, room: int) -> int:
    """How many of them registers have room for; on tensor cores all or none."""
    if g.operand.tensor:
        return g.quads if g.registers <= room else 0
    return min(g.quads, room // (g.sweeps * 4 * g.tile.rows))


def shares(base: Geometry, limits: Limits) -> Iterator[Geometry]:
    """The most units that a block can hold, for each number of warps and of shares of k."""
    least = 32 * base.operand.per_word if base.operand.tensor else 128  # k of a warp
    for splits in range(1, -(-base.hidden // least) + 1):
        for warps, room in register_weights(base, limits).items():
            units = (warps // splits) * base.sweeps * base.tile.warp_rows // base.gates
            g = replace(base, splits=splits, units=min(units, base.hidden))
            held = held_quads(g, room)
            if warps % splits == 0 and units and held:
                g = replace(g, held=held)
                if g.shared_bytes <= limits.shared_per_block:
                    yield g


def largest_share(base: Geometry, limits: Limits) -> Geometry | None:
    """All in registers if the device can hold the layer so, else with as little as possible in shared memory."""
    return min((g for g in shares(base, limits) if g.blocks <= limits.multiprocessors), key=cost, default=None)


def cost(g: Geometry) -> tuple[int, int]:
    """Weights in shared memory must be read at each step; fewer blocks meet sooner and leave more room for the batch."""
    return g.layout.h, g.blocks * g.splits


def with_rows(g: Geometry, rows: int, limits: Limits) -> Geometry | None:
    tiles = straight_tiles(-(-rows // g.tile.batch), limits)
    return tiles and replace(g, tiles=tiles[0], turns=tiles[1])


def straight_tiles(tiles: int, limits: Limits) -> tuple[int, int] | None:
    """-> batch tiles as straight-line code, times that it runs; None if there are too many."""
    if limits.compute_capability >= LOOPS_FROM:
        return min(tiles, STRAIGHT_TILES), -(-tiles // STRAIGHT_TILES)
    return (tiles, 1) if tiles <= STRAIGHT_ONLY else None


def with_units(g: Geometry, blocks: int) -> Geometry:
    """The same work on as many blocks as there are, but not less than four warps each."""
    fewest = 4 * g.sweeps * g.tile.warp_rows // (g.splits * g.gates)
    return replace(g, units=min(max(-(-g.hidden // blocks), fewest), g.units))


def capacity(g: Geometry | BackwardGeometry, units: int, limits: Limits) -> str:
    """Why a layer is too large, when a block holds so many units of it."""
    unit = g.operand.item * g.gates * g.hidden / 1e6
    held = unit * units * limits.multiprocessors
    return (
        f"W_h ({g.gates}*{g.hidden}, {g.hidden}) {g.operand.name} = {unit * g.hidden:.1f} MB;"
        f" the {limits.multiprocessors} multiprocessors of {limits.name} hold {held:.1f} MB of it"
    )
