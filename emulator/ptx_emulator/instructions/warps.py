"""Instructions that the lanes of a warp execute together: shfl, vote, activemask, and synchronising the warp."""

import re
from typing import Any

import numpy as np

from .semantics import Semantics, opcode


@opcode(r"shfl\.sync\.(?P<mode>up|down|bfly|idx)\.b32")
def _shuffle(m: re.Match[str]) -> Semantics:
    """Second result: whether the lane that was asked for lies in the segment; if not, a lane reads itself."""
    mode = m["mode"]

    def shuffle(group: Any, value: Any, by: Any, clamp: Any, members: Any) -> Any:
        lane = group.lane
        segment, bound = (clamp.astype(np.int64) >> 8) & 31, clamp.astype(np.int64) & 31
        by = by.astype(np.int64) & 31
        last, first = (lane & segment) | (bound & ~segment), lane & segment
        source = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": first | (by & ~segment)}[mode]
        inside = source >= last if mode == "up" else source <= last
        source = np.where(inside, source, lane)
        group.require_members(members)
        position = group.position_of(group.ids - lane + source)
        if (position < 0).any():
            group.warn("shfl reads a lane that does not take part")
        value = np.broadcast_to(value, (group.n,))
        return value[position], inside

    return Semantics(shuffle, ("b32", "pred"), ("b32", "u32", "u32", "u32"), group=True)


@opcode(r"vote\.sync\.(?P<mode>ballot|all|any|uni)\.(b32|pred)")
def _vote(m: re.Match[str]) -> Semantics:
    mode = m["mode"]

    def vote(group: Any, predicate: Any, members: Any) -> Any:
        group.require_members(members)
        for_, present = group.ballot(predicate), group.ballot(np.ones(1, bool))
        if mode == "ballot":
            return for_.astype(np.uint32)
        return {"all": for_ == present, "any": for_ != 0, "uni": (for_ == present) | (for_ == 0)}[mode]

    return Semantics(vote, ("b32" if mode == "ballot" else "pred",), ("pred", "u32"), group=True)


@opcode(r"activemask\.b32")
def _active(m: re.Match[str]) -> Semantics:
    return Semantics(lambda group: group.ballot(np.ones(1, bool)).astype(np.uint32), ("b32",), (), group=True)


@opcode(r"bar\.warp\.sync")
def _synchronise(m: re.Match[str]) -> Semantics:
    def synchronise(group: Any, members: Any) -> None:
        group.require_members(members)
        group.launch.order.warp_barrier(np.unique(group.warp))

    return Semantics(synchronise, (), ("u32",), group=True)


@opcode(r"nanosleep\.u32")
def _sleep(m: re.Match[str]) -> Semantics:
    return Semantics(lambda time: None, (), ("u32",))
