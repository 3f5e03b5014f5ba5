"""Where the threads of a grid stand: their blocks, warps, lanes and special registers."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, int, int]


class Layout(NamedTuple):
    """The places of a grid's threads: the same for all launches of its shape."""

    ids: Any
    block: Any
    warp: Any
    lane: Any
    lanes_of_warp: Any  # (warps,) bits of the lanes that exist
    special: dict[str, Any]


@lru_cache(256)
def layout(grid: Shape, block: Shape) -> Layout:
    threads, blocks = int(np.prod(block)), int(np.prod(grid))
    ids = np.arange(threads * blocks)
    within, number = ids % threads, ids // threads
    warps = -(-threads // 32)
    lane = within % 32
    last = np.tile(np.minimum(32, threads - 32 * np.arange(warps)), blocks)
    special = {"%laneid": lane, "%warpid": within // 32}
    for name, (x, y, z), count in (("tid", block, within), ("ctaid", grid, number)):
        split = (count % x, count // x % y, count // (x * y))
        for axis, size, value in zip("xyz", (x, y, z), split, strict=True):
            special[f"%{name}.{axis}"] = value if size > 1 else np.zeros(1, np.int64)
            special[f"%n{name}.{axis}"] = np.array([size])
    one = np.int64(1) << lane
    special |= {"%lanemask_eq": one, "%lanemask_lt": one - 1, "%lanemask_le": 2 * one - 1}
    special |= {"%lanemask_gt": (1 << 32) - 2 * one, "%lanemask_ge": (1 << 32) - one}
    narrow = {name: value.astype(np.uint32) for name, value in special.items()}
    return Layout(ids, number, number * warps + within // 32, lane, (np.int64(1) << last) - 1, narrow)
