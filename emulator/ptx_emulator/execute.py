"""The instructions of one basic block, for one group of threads.

`values` holds what registers hold, by slot: a list for the whole grid, a dictionary for a part of it.
"""

from typing import Any

import numpy as np

from .errors import PTXError
from .program import Op
from .threads import Group

UNDEFINED = np.zeros(1, np.uint64)  # a register that nothing was written to


def as_type(value: Any, dtype: Any) -> Any:
    """A register's bits as an operand of an instruction; the low ones if the operand is narrower."""
    if value.dtype is dtype:
        return value
    if value.dtype.itemsize == dtype.itemsize:
        return value.view(dtype)
    if value.dtype.itemsize < dtype.itemsize:
        raise PTXError(f"a register of {value.dtype} read as {dtype}")
    return value.view(f"u{value.dtype.itemsize}").astype(f"u{dtype.itemsize}").view(dtype)


def execute(ops: list[Op], values: Any, group: Group) -> None:
    launch = group.launch
    for op in ops:
        launch.at = op
        if op.guard is not None:
            guarded(op, values, group)
            continue
        arguments = [v if (v := values[slot]).dtype is dtype else as_type(v, dtype) for slot, dtype in op.sources]
        result = op.function(group, *arguments) if op.group else op.function(*arguments)
        put(op, result, values)


def put(op: Op, result: Any, values: Any) -> None:
    destinations = op.destinations
    if len(destinations) == 1:
        slot, widen = destinations[0]
        if type(result) is tuple:
            result = result[0]
        values[slot] = result if widen is None else widen(result)
    else:
        for (slot, widen), r in zip(destinations, result or (), strict=True):
            values[slot] = r if widen is None else widen(r)


def guarded(op: Op, values: Any, group: Group) -> None:
    """By the threads whose guard holds."""
    assert op.guard is not None
    acts = np.broadcast_to(values[op.guard[0]], (group.n,)) ^ op.guard[1]
    if not acts.any():
        return
    positions = np.flatnonzero(acts)
    some = group if len(positions) == group.n else group.subset(positions)
    sources = [as_type(values[slot], dtype) for slot, dtype in op.sources]
    arguments = [s[positions] if s.size > 1 else s for s in sources]
    result = op.function(some, *arguments) if op.group else op.function(*arguments)
    new: dict[int, Any] = {}
    put(op, result, new)
    for slot, value in new.items():
        values[slot] = scattered(values[slot], value, positions, group.n)


def scattered(before: Any, value: Any, positions: Any, n: int) -> Any:
    """(n,) with `value` at `positions`: registers share their arrays, so none is written in place."""
    if before is UNDEFINED:
        result = np.zeros(n, value.dtype)
    else:
        if before.dtype != value.dtype:
            before = before.view(value.dtype)
        result = before.copy() if before.size == n else np.broadcast_to(before, (n,)).copy()
    result[positions] = value
    return result
