"""Counts of a launch: instructions by opcode, bytes, and, if asked for, sectors and bank conflicts."""

from collections import Counter
from typing import Any

import numpy as np

SECTOR = 32  # bytes, what global memory is read and written in
BANKS, BANK_BYTES = 32, 4


class Counters:
    """bytes, requests, sectors: by (space, "load" or "store"). conflicts: shared memory's cycles, 1 a request without any."""

    def __init__(self, detailed: bool) -> None:
        self.detailed = detailed
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()  # of warps; only if detailed, as are those below
        self.sectors: Counter[str] = Counter()
        self.cycles: Counter[str] = Counter()
        self.opcodes: Counter[str] = Counter()  # threads that executed them; a guarded one counts whether or not it acts

    def memory(self, group: Any, space: str, kind: str, offsets: Any, size: int) -> None:
        self.bytes[space, kind] += group.n * size
        if not self.detailed:
            return
        self.requests[space, kind] += len(np.unique(group.warp))
        if space == "global":
            touched = offsets[:, None] // SECTOR + np.arange(max(1, size // SECTOR))
            self.sectors[kind] += len(np.unique(group.warp[:, None] * (1 << 40) + touched))
        else:
            self.cycles[kind] += _bank_cycles(group.warp, offsets, size)


def _bank_cycles(warp: Any, offsets: Any, size: int) -> int:
    """Different words of one bank take turns; a word asked for by several lanes is read once."""
    words = offsets[:, None] // BANK_BYTES + np.arange(max(1, size // BANK_BYTES))
    distinct = np.unique(warp[:, None] * (1 << 40) + words)
    of_warp, bank = distinct >> 40, distinct % (1 << 40) % BANKS
    pairs, counts = np.unique(of_warp * BANKS + bank, return_counts=True)
    worst = np.zeros(int(of_warp.max()) + 1, np.int64)
    np.maximum.at(worst, pairs // BANKS, counts)
    return int(worst.sum())
