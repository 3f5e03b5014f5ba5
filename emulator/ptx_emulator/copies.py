"""cp.async copies under way, in the groups that each thread commits and waits for."""

from typing import Any, NamedTuple

import numpy as np

from . import access


class Copy(NamedTuple):
    ids: Any  # (n,) threads
    batch: Any  # (n,) the group of each thread that it belongs to
    address: Any  # (n,)
    values: list[Any]


class Copies:
    def __init__(self, threads: int) -> None:
        self.committed = np.zeros(threads, np.int64)  # groups that each thread has committed
        self._running: list[Copy] = []

    def start(self, group: Any, address: Any, values: list[Any]) -> None:
        values = [np.broadcast_to(v, (group.n,)) for v in values]
        self._running.append(Copy(group.ids, self.committed[group.ids], address, values))

    def commit(self, ids: Any) -> None:
        self.committed[ids] += 1

    def wait(self, group: Any, pending: int) -> None:
        """All but the last `pending` groups of these threads arrive."""
        waits = np.zeros(len(self.committed), bool)
        waits[group.ids] = True
        running, self._running = self._running, []
        for copy in running:
            done = waits[copy.ids] & (copy.batch < self.committed[copy.ids] - pending)
            for arrives, chosen in ((True, done), (False, ~done)):
                if not chosen.any():
                    continue
                part = Copy(copy.ids[chosen], copy.batch[chosen], copy.address[chosen], [v[chosen] for v in copy.values])
                if arrives:
                    some = group.subset(np.searchsorted(group.ids, part.ids))
                    access.store(some, "shared", part.address, part.values, "weak")
                else:
                    self._running.append(part)

    @property
    def unfinished(self) -> int:
        return sum(len(copy.ids) for copy in self._running)
