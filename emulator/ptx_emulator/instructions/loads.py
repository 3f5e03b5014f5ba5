"""ld and st. What is cached where does not change values, save for .nc: see `memory`."""

import re
from typing import Any

from .semantics import DTYPES, UNSIGNED, Semantics, opcode

TYPE = r"[bsuf](8|16|32|64)"
COUNT = r"(\.v(?P<count>2|4))?"
SPACE = r"(\.(?P<space>global|shared|const))?"
LOAD_CACHE = r"(\.(ca|cg|cs|lu|cv))?"
HINTS = r"(\.L1::(evict_normal|evict_unchanged|evict_first|evict_last|no_allocate))?(\.L2::(64B|128B|256B))?"
ORDER = r"(\.(?P<order>weak|volatile|relaxed|acquire|release))?(\.(gpu|sys))?"  # .cta would order less than it is taken for


def _columns(m: re.Match[str]) -> tuple[Any, int]:
    return DTYPES[m["type"]], int(m["count"] or 1)


@opcode(rf"ld{ORDER}{SPACE}{LOAD_CACHE}(?P<constant>\.nc)?{HINTS}{COUNT}\.(?P<type>{TYPE})")
def _load(m: re.Match[str]) -> Semantics:
    dtype, count = _columns(m)
    space, order = m["space"] or "generic", m["order"] or "weak"
    constant = m["constant"] is not None
    raw = UNSIGNED[dtype.itemsize]

    def load(group: Any, address: Any) -> Any:
        values = group.load(space, address, raw, count, order, constant)
        return values.view(dtype) if count == 1 else tuple(v.view(dtype) for v in values)

    return Semantics(load, (m["type"],) * count, ("address",), group=True)


@opcode(rf"st{ORDER}{SPACE}(\.(wb|cg|cs|wt))?{HINTS}{COUNT}\.(?P<type>{TYPE})")
def _store(m: re.Match[str]) -> Semantics:
    dtype, count = _columns(m)
    space, order = m["space"] or "generic", m["order"] or "weak"
    raw = UNSIGNED[dtype.itemsize]

    def store(group: Any, address: Any, *values: Any) -> None:
        group.store(space, address, [v.view(raw) for v in values], order)

    return Semantics(store, (), ("address",) + (m["type"],) * count, group=True)


@opcode(r"(prefetch|prefetchu)(\.global)?\.(L1|L2)")
def _prefetch(m: re.Match[str]) -> Semantics:
    return Semantics(lambda address: None, (), ("address",))
