"""The threads that execute an instruction together."""

from functools import cached_property
from typing import Any

import numpy as np

from . import access

Ids = Any  # arrays (n,) of int64


class Group:
    """Threads `ids` (n,) of a launch, ascending."""

    def __init__(self, launch: Any, ids: Ids) -> None:
        self.launch, self.ids, self.n = launch, ids, len(ids)
        self.everyone = self.n == launch.thread_count

    @cached_property
    def block(self) -> Ids:
        return self.launch.block_of[self.ids]

    @cached_property
    def warp(self) -> Ids:
        """Counted over the whole grid."""
        return self.launch.warp_of[self.ids]

    @cached_property
    def lane(self) -> Ids:
        return self.launch.lane_of[self.ids]

    @cached_property
    def tags(self) -> Ids:
        return self.ids + 1

    def subset(self, positions: Ids) -> "Group":
        return Group(self.launch, self.ids[positions])

    def position_of(self, ids: Ids) -> Ids:
        """The positions of threads in this group; -1 for those that are not in it."""
        if self.everyone:
            return np.where(ids < self.n, ids, -1)
        found = np.minimum(np.searchsorted(self.ids, ids), self.n - 1)
        return np.where(self.ids[found] == ids, found, -1)

    def ballot(self, predicate: Any) -> Ids:
        """(n,) int64: the bits of the lanes of each thread's warp for which it holds."""
        bits = np.where(np.broadcast_to(predicate, (self.n,)), np.int64(1) << self.lane, 0)
        words = np.zeros(self.launch.warp_count, np.int64)
        np.bitwise_or.at(words, self.warp, bits)
        return words[self.warp]

    def require_members(self, members: Any) -> None:
        """A .sync instruction names the lanes that must take part."""
        if self.everyone:
            return
        named = members.astype(np.int64) & self.launch.lanes_of_warp[self.warp]
        if (named & ~self.ballot(np.ones(1, bool))).any():
            self.warn("a warp-wide instruction names lanes that do not take part")

    def noisy(self, exact: Any, relative_error: float, operand: Any) -> Any:
        """Off by a random part of the error: always the same for the same operand, as on a GPU."""
        if not self.launch.noise:
            return exact
        return exact * (1 + relative_error * _hashed(operand))

    def warn(self, text: str, position: int = 0) -> None:
        self.launch.warn(f"{text} ({self.launch.name_of(int(self.ids[position]))})")

    def load(self, space: str, address: Any, raw: Any, count: int, order: str, constant: bool = False) -> Any:
        return access.load(self, space, address, raw, count, order, constant)

    def store(self, space: str, address: Any, values: list[Any], order: str) -> None:
        access.store(self, space, address, values, order)

    def copy_later(self, address: Any, values: list[Any]) -> None:
        """cp.async: the values arrive in shared memory when the threads have waited."""
        address = np.broadcast_to(address, (self.n,))
        access.begin_copy(self, address, values)
        self.launch.copies.start(self, address, values)


def _hashed(x: Any) -> Any:
    """float64 in [-1, 1), of the bits of floats."""
    bits = x.view(f"u{x.itemsize}").astype(np.uint32) * np.uint32(0x9E3779B1)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x85EBCA77)
    return (bits ^ (bits >> np.uint32(13))).view(np.int32) * 2.0**-31
