"""The order of accesses, and a record of the last ones to every word, to find two that are not ordered.

Time is one counter of a launch that every synchronisation advances. An access made at time t by a thread happens before
what another thread does now if, since then, both met at a barrier (of their warp, block or the whole grid) or a release by
the one block was acquired by the other. Releases and acquires count for blocks, which is strict: a release covers what
its block did before the block's last barrier, an acquire what its block does after its next one.
"""

from typing import Any

import numpy as np

THREAD_BITS = 20
STRONG = 1 << THREAD_BITS  # atomics and ordered accesses do not race with each other
TIME_SHIFT = THREAD_BITS + 1
THREADS = STRONG - 1
NEVER = 1 << 40


class Order:
    """Happens-before between the blocks and warps of one launch."""

    def __init__(self, blocks: int, warps_per_block: int) -> None:
        self.now = 1
        self.block_sync = np.ones(blocks, np.int64)  # when each block last met at a barrier
        self.warp_sync = np.ones(blocks * warps_per_block, np.int64)
        self.seen = np.zeros((blocks, blocks), np.int64)  # [reader, writer]: what the writer did before then is visible
        self.floor = 1 << TIME_SHIFT  # all records below are ordered before everything inside their own block
        self._single_warp = warps_per_block == 1
        self._pending = np.zeros((blocks, blocks), np.int64)
        self._acquired_at = np.full(blocks, NEVER)
        self._released: dict[int, Any] = {}  # address -> what its releases cover

    def block_barrier(self, blocks: Any) -> None:
        """blocks: an index into the blocks."""
        self.now += 1
        self.block_sync[blocks] = self.now
        self.floor = int(self.block_sync.min()) << TIME_SHIFT
        for block in np.flatnonzero(self._acquired_at < NEVER):
            self._settle(int(block), int(self.block_sync[block]))

    def warp_barrier(self, warps: Any) -> None:
        self.now += 1
        self.warp_sync[warps] = self.now
        if self._single_warp:
            for block in warps:
                self._settle(int(block), int(self.warp_sync[block]))

    def grid_barrier(self) -> None:
        self.now += 1
        self.block_sync[:] = self.now
        self.seen[:] = self.now
        self.floor = self.now << TIME_SHIFT

    def _settle(self, block: int, synchronised: int) -> None:
        if synchronised > self._acquired_at[block]:
            self.seen[block] = np.maximum(self.seen[block], self._pending[block])
            self._acquired_at[block] = NEVER

    def _covered(self, block: int) -> Any:
        clock = self.seen[block].copy()
        clock[block] = max(self.block_sync[block], self.warp_sync[block]) if self._single_warp else self.block_sync[block]
        return clock

    def release(self, block: int, address: int, update: bool) -> None:
        """update: of an atomic, which goes on what was released there before; a store begins anew."""
        before = self._released.get(address) if update else None
        clock = self._covered(block)
        self._released[address] = clock if before is None else np.maximum(before, clock)

    @property
    def has_released(self) -> bool:
        return bool(self._released)

    def overwrite(self, address: int) -> None:
        """A store without release: who reads its value acquires nothing."""
        self._released.pop(address, None)

    def acquire(self, block: int, address: int) -> None:
        clock = self._released.get(address)
        if clock is not None:
            self._pending[block] = np.maximum(self._pending[block], clock)
            self._acquired_at[block] = self.now


class Tracker:
    """The last accesses to each granule: `time << 21 | strong << 20 | thread + 1`, 0 for none.

    private: a block's own memory. Of the readers since, two are kept, of different warps (private) or blocks if they differ.
    """

    def __init__(self, granules: int, granule: int, private: bool) -> None:
        self.granule, self.private = granule, private
        self.written = np.zeros(granules, np.int64)
        self.read = np.zeros(granules, np.int64)
        self.read_elsewhere = np.zeros(granules, np.int64)

    def rows(self, array: Any, size: int) -> Any:
        """One entry a granule -> one row an access of `size` bytes."""
        return array.reshape(-1, size // self.granule) if size > self.granule else array

    def load(self, group: Any, index: Any, size: int, strong: bool) -> str | None:
        """Records reads (n,) of rows `index`; gives the access that they race with, in words."""
        written = self.rows(self.written, size).take(index, 0)
        conflict = self._unordered(group, written, strong)
        records = self._records(group, strong, written.ndim)
        read, elsewhere = self.rows(self.read, size), self.rows(self.read_elsewhere, size)
        before = read.take(index, 0)
        backwards = index[::-1]
        if int(before.max()) < (group.launch.order.floor if self.private else 1):  # no older reader matters
            elsewhere[backwards] = records[::-1]
        else:
            read[backwards] = records[::-1]
            self._keep_elsewhere(group, elsewhere, index, before, read.take(index, 0))
        read[index] = records
        return f"reads what {conflict} wrote" if conflict else None

    def _keep_elsewhere(self, group: Any, elsewhere: Any, index: Any, before: Any, first: Any) -> None:
        """Keeps a second reader, of those before or now, if its warp or block is not that of the last one."""
        own, unit = (group.warp, group.launch.warp_of) if self.private else (group.block, group.launch.block_of)
        own = own if before.ndim == 1 else own[:, None]
        kept = np.where(unit[(first & THREADS) - 1] != own, first, before)
        differs = (kept != 0) & (unit[(kept & THREADS) - 1] != own)
        if differs.any():
            elsewhere[index] = np.where(differs, kept, elsewhere[index])

    def store(self, group: Any, index: Any, size: int, strong: bool) -> str | None:
        """Records writes (n,) of rows `index`; gives the access that they race with, in words."""
        written, found = self.rows(self.written, size), None
        for array, what in ((self.written, "wrote"), (self.read, "read"), (self.read_elsewhere, "read")):
            conflict = self._unordered(group, self.rows(array, size).take(index, 0), strong)
            if conflict and found is None:
                found = f"writes what {conflict} {what}"
        records = self._records(group, strong, written.ndim)
        written[index] = records
        if not strong and found is None and (written.take(index, 0) != records).any():
            found = "writes what another thread writes in the same instruction"
        return found

    def _records(self, group: Any, strong: bool, dimensions: int) -> Any:
        records = group.tags + ((group.launch.order.now << TIME_SHIFT) | (STRONG if strong else 0))
        return records if dimensions == 1 else records[:, None]

    def _unordered(self, group: Any, before: Any, strong: bool) -> str | None:
        """A thread among `before` (n,) or (n, k) whose access is not ordered before the group's now."""
        order, launch = group.launch.order, group.launch
        if int(before.max()) < (order.floor if self.private else 1):
            return None
        ids, blocks, warps = (x[:, None] if before.ndim == 2 else x for x in (group.ids, group.block, group.warp))
        who, when = (before & THREADS) - 1, before >> TIME_SHIFT
        other_block, other_warp = launch.block_of[who], launch.warp_of[who]
        within = np.maximum(order.block_sync[blocks], np.where(other_warp == warps, order.warp_sync[warps], 0))
        since = np.where(other_block == blocks, within, order.seen[blocks, other_block])
        bad = (before != 0) & (who != ids) & (when >= since)
        if strong:
            bad &= (before & STRONG) == 0
        if not bad.any():
            return None
        first = tuple(axis[0] for axis in np.nonzero(bad))
        return str(launch.name_of(int(who[first])))
