"""atom and red. Threads take their turns in random order: float sums must not depend on it."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .semantics import DTYPES, UNSIGNED, Semantics, opcode

ORDER = r"(\.(?P<order>relaxed|acquire|release|acq_rel))?(\.(gpu|sys))?"  # .cta would order less than it is taken for
SPACE = r"(\.(?P<space>global|shared))?"
UPDATES: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda old, x: old + x,
    "min": min,
    "max": max,
    "and": lambda old, x: old & x,
    "or": lambda old, x: old | x,
    "xor": lambda old, x: old ^ x,
    "exch": lambda old, x: x,
    "inc": lambda old, x: old * 0 if old >= x else old + type(old)(1),
    "dec": lambda old, x: x if old == 0 or old > x else old - type(old)(1),
}
INTEGERS = r"add|min|max|and|or|xor|inc|dec"


@opcode(
    rf"(?P<op>atom|red){ORDER}{SPACE}\.((?P<kind>{INTEGERS}|exch)\.(?P<type>[bsu](32|64))|(?P<sum>add)\.(?P<float>f32|f64))"
)
def _atomic(m: re.Match[str]) -> Semantics:
    kind, name = m["type"] or m["float"], m["kind"] or m["sum"]
    update, dtype = UPDATES[name], DTYPES[kind]
    space, order = m["space"] or "generic", m["order"] or "relaxed"

    def atomic(group: Any, address: Any, value: Any) -> Any:
        old = _in_turn(
            group, space, address, order, dtype, lambda k, before: update(before, value[k if value.size > 1 else 0])
        )
        return old if m["op"] == "atom" else None

    return Semantics(atomic, (kind,) if m["op"] == "atom" else (), ("address", kind), group=True)


@opcode(rf"atom{ORDER}{SPACE}\.cas\.(?P<type>b(32|64))")
def _compare_and_swap(m: re.Match[str]) -> Semantics:
    dtype, space, order = DTYPES[m["type"]], m["space"] or "generic", m["order"] or "relaxed"

    def swap(group: Any, address: Any, expected: Any, value: Any) -> Any:
        expected, value = (np.broadcast_to(x, (group.n,)) for x in (expected, value))
        return _in_turn(group, space, address, order, dtype, lambda k, before: value[k] if before == expected[k] else before)

    return Semantics(swap, (m["type"],), ("address", m["type"], m["type"]), group=True)


def _in_turn(group: Any, space: str, address: Any, order: str, dtype: Any, update: Callable[[int, Any], Any]) -> Any:
    """One thread after the other reads, updates and writes; gives what each read."""
    address, old, raw = np.broadcast_to(address, (group.n,)), np.zeros(group.n, dtype), UNSIGNED[dtype.itemsize]
    for k in group.launch.random.permutation(group.n):
        one, at = group.subset(np.array([k])), address[k : k + 1]
        before = one.load(space, at, raw, 1, "acquire" if order in ("acquire", "acq_rel") else "relaxed").view(dtype)[0]
        after = np.array([update(k, before)], dtype).view(raw)
        one.store(space, at, [after], "update_release" if order in ("release", "acq_rel") else "update")
        old[k] = before
    return old
