"""Loads and stores: bounds, alignment, initialisation and races are checked, bytes and conflicts counted, then data moves.

order: weak, volatile, relaxed, acquire, release; update and update_release are the stores of atomics.
"""

from typing import Any

import numpy as np

from .errors import PTXError
from .instructions.conversions import WINDOWS

IN_FLIGHT = 2  # a flag of shared memory: a cp.async is filling it


def load(group: Any, space: str, address: Any, raw: Any, count: int, order: str, constant: bool) -> Any:
    """(n,), or (count, n), of unsigned numbers `raw`. constant: .nc, which must not read what this launch writes."""
    size = raw.itemsize * count
    address = np.broadcast_to(address, (group.n,))
    parts = list(_places(group, space, address, size))
    if len(parts) == 1 and parts[0][1] is None:
        return _load(group, parts[0][0], parts[0][2], raw, count, order, constant)
    result = np.empty((count, group.n) if count > 1 else group.n, raw)
    for place, positions, offsets in parts:
        result[..., positions] = _load(group.subset(positions), place, offsets, raw, count, order, constant)
    return result


def store(group: Any, space: str, address: Any, values: list[Any], order: str) -> None:
    size = values[0].itemsize * len(values)
    address = np.broadcast_to(address, (group.n,))
    for place, positions, offsets in _places(group, space, address, size):
        if positions is None:
            _store(group, place, offsets, values, order)
        else:
            some = [v[positions] if v.size > 1 else v for v in values]
            _store(group.subset(positions), place, offsets, some, order)


def begin_copy(group: Any, address: Any, values: list[Any]) -> None:
    """The destination of a cp.async: written from now on, but not there yet."""
    size = 4 * len(values)
    for place, positions, offsets in _places(group, "shared", address, size):
        some = group if positions is None else group.subset(positions)
        index = offsets // size
        _report(some, place.tracker.store(some, index, size, False) if group.launch.check_races else None)
        place.region.rows(place.region.flags, size)[index] = IN_FLIGHT


class Place:
    """A region and this launch's record of who used it."""

    def __init__(self, region: Any, tracker: Any, space: str) -> None:
        self.region, self.tracker, self.space = region, tracker, space


def _places(group: Any, space: str, address: Any, size: int) -> Any:
    """(place, positions in the group or None for all, offsets in the region's data) of every place that is touched."""
    if (address & (size - 1)).any():
        worst = int(np.flatnonzero(address & (size - 1))[0])
        raise PTXError(f"misaligned access of {size} bytes by {group.launch.name_of(int(group.ids[worst]))}")
    launch = group.launch
    if space == "generic":
        shared = (address >= WINDOWS["shared"]) & (address < WINDOWS["local"])
        if shared.all():
            space, address = "shared", address - WINDOWS["shared"]
        elif shared.any():
            for inside, name, window in ((shared, "shared", WINDOWS["shared"]), (~shared, "global", 0)):
                positions = np.flatnonzero(inside)
                for place, where, offsets in _places(group.subset(positions), name, address[positions] - window, size):
                    yield place, positions if where is None else positions[where], offsets
            return
        else:
            space = "global"
    if space == "shared":
        if int(address.min()) < 0 or int(address.max()) + size > launch.shared_bytes:
            worst = int(np.flatnonzero((address < 0) | (address + size > launch.shared_bytes))[0])
            who = launch.name_of(int(group.ids[worst]))
            raise PTXError(f"out of bounds: shared byte {int(address[worst])} of {launch.shared_bytes} by {who}")
        yield launch.shared, None, address + group.block * launch.shared_stride
        return
    for region, positions in launch.memory.split(address, size):
        part = address if positions is None else address[positions]
        yield launch.place(region), positions, part - region.base


def _load(group: Any, place: Any, offsets: Any, raw: Any, count: int, order: str, constant: bool) -> Any:
    region, launch, size = place.region, group.launch, raw.itemsize * count
    index = offsets // size
    launch.counters.memory(group, place.space, "load", offsets, size)
    if not region.complete:
        _require_initialised(group, region, index, size, place.space)
    if order == "acquire" and place.space == "global":
        for block, offset in zip(group.block.tolist(), offsets.tolist(), strict=True):
            launch.order.acquire(block, region.base + offset)
    if launch.check_races:
        _report(group, place.tracker.load(group, index, size, order != "weak"))
        if constant and place.tracker.rows(place.tracker.written, size).take(index, 0).any():
            group.warn("ld.global.nc of what this launch has written")
    if count == 1:
        return region.data.view(raw).take(index)
    return np.ascontiguousarray(region.data.view(raw).reshape(-1, count).take(index, 0).T)


def _require_initialised(group: Any, region: Any, index: Any, size: int, space: str) -> None:
    flags = region.rows(region.flags, size).take(index, 0)
    if flags.min() == flags.max() == 1:
        return
    if (flags == IN_FLIGHT).any():
        group.warn("reads shared memory that a cp.async is still filling")
    bad = flags == 0
    if bad.any():
        group.warn(f"reads {space} memory that is not initialised, {region.name}", int(np.nonzero(bad)[0][0]))


def _store(group: Any, place: Any, offsets: Any, values: list[Any], order: str) -> None:
    region, launch = place.region, group.launch
    raw, count = values[0].dtype, len(values)
    size = raw.itemsize * count
    index = offsets // size
    launch.counters.memory(group, place.space, "store", offsets, size)
    if launch.check_races:
        _report(group, place.tracker.store(group, index, size, order != "weak"))
    if place.space == "global" and order != "update":
        _order_store(group, region, offsets, order)
    if count == 1:
        region.data.view(raw)[index] = values[0]
    else:
        rows = region.data.view(raw).reshape(-1, count)
        for k, value in enumerate(values):
            rows[index, k] = value
    if not region.complete:
        region.rows(region.flags, size)[index] = True


def _order_store(group: Any, region: Any, offsets: Any, order: str) -> None:
    happens = group.launch.order
    if order.endswith("release"):
        for block, offset in zip(group.block.tolist(), offsets.tolist(), strict=True):
            happens.release(block, region.base + offset, order == "update_release")
    elif happens.has_released:
        for offset in offsets.tolist():
            happens.overwrite(region.base + offset)


def _report(group: Any, race: str | None) -> None:
    if race:
        group.warn(f"race: {race}")
