"""The meaning of an opcode: a function of arrays over threads, with the types of its operands.

An opcode is matched whole, modifiers and all, by a pattern that spells out every modifier its function knows: what no
pattern matches raises. There is no other list.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..errors import UnknownPTX

DTYPES: dict[str, Any] = {
    "pred": np.dtype(np.bool_),
    "b8": np.dtype(np.uint8),
    "u8": np.dtype(np.uint8),
    "s8": np.dtype(np.int8),
    "b16": np.dtype(np.uint16),
    "u16": np.dtype(np.uint16),
    "s16": np.dtype(np.int16),
    "f16": np.dtype(np.float16),
    "f16x2": np.dtype(np.uint32),
    "tf32": np.dtype(np.uint32),
    "b32": np.dtype(np.uint32),
    "u32": np.dtype(np.uint32),
    "s32": np.dtype(np.int32),
    "f32": np.dtype(np.float32),
    "b64": np.dtype(np.uint64),
    "u64": np.dtype(np.uint64),
    "s64": np.dtype(np.int64),
    "f64": np.dtype(np.float64),
    "address": np.dtype(np.int64),
}
UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
SIGNED = {size: np.dtype(f"i{size}") for size in (1, 2, 4, 8)}
WIDER = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}


class Semantics(NamedTuple):
    """function(*sources) gives the destination's array, or a tuple of them; all arrays are (n,), or (1,) if uniform.

    group: the function's first argument is the group of threads that executes it.
    """

    function: Callable[..., Any]
    destinations: tuple[str, ...]
    sources: tuple[str, ...]
    group: bool = False


Builder = Callable[[re.Match[str]], Semantics]
_PATTERNS: list[tuple[re.Pattern[str], Builder]] = []


def opcode(pattern: str) -> Callable[[Builder], Builder]:
    """Registers what a whole opcode means; named groups of the pattern reach the builder as a match."""

    def register(builder: Builder) -> Builder:
        _PATTERNS.append((re.compile(pattern), builder))
        return builder

    return register


@cache
def semantics(name: str) -> Semantics:
    found = [(builder, match) for pattern, builder in _PATTERNS if (match := pattern.fullmatch(name))]
    if not found:
        raise UnknownPTX(f"opcode {name}")
    if len(found) > 1:
        raise UnknownPTX(f"opcode {name} has {len(found)} meanings")
    builder, match = found[0]
    return builder(match)
