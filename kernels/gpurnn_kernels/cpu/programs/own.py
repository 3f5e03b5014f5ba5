"""What a thread with rows of its own has apart from the others: its rows of h, c, r * h and m and, where it helps, W_h.

Two threads whose rows lie side by side are slower than two processes, and so are two that read the same W_h from their caches:
a core probably fetches ahead what the other one is about to write, and a line that both hold is slow to come back to one that
has lost it. So each thread runs a copy of its job, made anew in each call, in which these fields are its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...spec import Array
from ..codegen.aligned import aligned
from ..codegen.descriptors import JOB_WORD
from ..passes.forward import forward_own
from ..threads.partition import Part
from .blocking import COPIED_BYTES, PAGE
from .command import Records
from .packer import Packed

_WEIGHTS = ("w_h", "w_h_n")


class OwnJob:
    """Of one share: [plane][row] for each field of rows, then the copy of the job."""

    def __init__(self, records: Records, share: Any, part: Part, planes: Mapping[str, int], packed: Packed | None) -> None:
        """planes: of rows, by their field. packed: the weights, if W_h shall be copied where that helps."""
        rows, row, job = part.row_end - part.row_begin, records.row * records.item, records.jobs.itemsize
        at = records.allocate((sum(planes.values()) * rows * row + job + PAGE) // records.item)
        fields = {"h_plane": rows * row}
        for name, count in planes.items():
            # rows keep their numbers
            fields[name] = at - part.row_begin * row
            at += count * rows * row
        # the first thread has the packed ones
        shared = {name: packed.arrays[name] for name in _WEIGHTS if name in packed.arrays} if packed and part.row_begin else {}
        copied = sum(array.nbytes for array in shared.values()) in COPIED_BYTES
        self._copies: dict[str, Array] = {name: aligned(a.size, a.dtype) for name, a in shared.items() if copied}
        fields |= {name: records.hold(copy) for name, copy in self._copies.items()}
        pairs = [(8 * JOB_WORD[name], value) for name, value in fields.items()]
        share["own"], share["own_fields"] = at, records.hold(np.array([(job, len(pairs)), *pairs], np.int64))
        share["own_kernel"], share["kernel"] = share["kernel"], records.address_of(forward_own)

    def use(self, packed: Packed) -> None:
        """Runs on these weights from now on."""
        for name, copy in self._copies.items():
            copy[:] = packed.arrays[name]
