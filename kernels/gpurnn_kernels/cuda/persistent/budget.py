"""The limits that both plans share: what a thread and a multiprocessor can hold, and why a layer does not fit.

Every tuning constant of the persistent kernels stands here or in a plan.
"""

from dataclasses import dataclass
from typing import Any

from ...spec import Spec
from ..host.device import Device, Limits
from .geometry import Geometry
from .kernels import kernel_of

# Words of weights a thread can hold beside 32 sums and its indices, by the warps of a block: 65536 registers, 255 a thread
REGISTER_WEIGHTS = {8: 128, 12: 64, 16: 32}
STRAIGHT_TILES = 4  # longer code gains nothing
STRAIGHT_ONLY = 8  # tiles where the code cannot loop
LOOPS_FROM = (9, 0)  # before, the compiler takes shuffles in a loop apart, at the price of spills


@dataclass(frozen=True)
class Refusal:
    reason: str


@dataclass(frozen=True)
class Plan:
    geometry: Any
    slices: int  # of the batch
    slice_rows: int

    @property
    def blocks(self) -> int:
        return int(self.geometry.blocks) * self.slices


def room_for_weights(words: dict[int, int], warps: int) -> int:
    """Words of weights that a thread of a block of so many warps can hold, by a table as `REGISTER_WEIGHTS`."""
    return next((weights for most, weights in words.items() if warps <= most), 0)


def straight_tiles(tiles: int, limits: Limits) -> tuple[int, int] | None:
    """-> batch tiles as straight-line code, times that it runs; None if there are too many."""
    if limits.compute_capability >= LOOPS_FROM:
        return min(tiles, STRAIGHT_TILES), -(-tiles // STRAIGHT_TILES)
    return (tiles, 1) if tiles <= STRAIGHT_ONLY else None


def sliced(batch: int, blocks: int, least: int, limits: Limits) -> tuple[int, int]:
    """Shares a batch out to the multiprocessors that remain, at least `least` rows each -> slices, rows of a slice."""
    slices = max(min(limits.multiprocessors // blocks, -(-batch // least)), 1)
    slice_rows = -(-batch // slices)
    return -(-batch // slice_rows), slice_rows


def unsupported(spec: Spec, batch: int, limits: Limits) -> str | None:
    """Why no persistent kernel runs a layer, whatever its size."""
    if batch == 0:
        return "no rows"
    if spec.dtype == "float64":
        return "persistent kernels compute in float32, the layer is float64"
    if spec.precision is not None and limits.compute_capability < (8, 0):
        return f"tf32 starts with compute capability 8.0, {limits.name} has 7.5"
    if spec.proj_size or spec.peepholes or spec.clip is not None:
        return "no persistent kernel for projected, peephole or clipped layers"
    return None


def not_resident(chosen: Plan, device: Device) -> Refusal | None:
    """Why the device cannot hold the blocks of a plan, forward or backward: all at once, where they wait for each other."""
    g, limits = chosen.geometry, device.limits
    resident = device.resident_blocks(kernel_of(g), g.shared_bytes)
    if resident and (g.alone or chosen.blocks <= resident * limits.multiprocessors):
        return None
    return Refusal(f"{chosen.blocks} blocks of {g.threads} threads cannot be resident on {limits.name}")


def too_many_rows(rows: int, limits: Limits) -> Refusal:
    return Refusal(f"{rows} rows of the batch in each block, more than its kernel can take on {limits.name}")


def too_large(g: Geometry, item: int, units: int, limits: Limits, name: str) -> Refusal:
    """Why a layer is too large, when a block holds so many units of it; item: bytes of a weight, name: of its type."""
    unit = item * g.num_gates * g.hidden / 1e6
    held = unit * units * limits.multiprocessors
    return Refusal(
        f"W_h ({g.num_gates}*{g.hidden}, {g.hidden}) {name} = {unit * g.hidden:.1f} MB;"
        f" the {limits.multiprocessors} multiprocessors of {limits.name} hold {held:.1f} MB of it"
    )
