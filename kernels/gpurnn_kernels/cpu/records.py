"""The memory of one command to the team: jobs, works, and everything that they point to."""

from collections.abc import Sequence
from ctypes import addressof, c_char
from typing import Any

import numpy as np

from ..spec import Array, Spec
from .backward import BACK
from .barrier import LINE, SPINS, YIELD_ADDRESS
from .compile import kernel_address
from .job import JOB_WORD, VECTOR_BYTES, WORK, job_dtype
from .schedule import Share, cut
from .shelf import aligned, aligned_zeros
from .team import TEAMS
from .tiles import table

_WORDS = 32  # of a bundle: those of one vector, and their steps
ROWS_BYTES = 1 << 22  # that one step of a block of rows may take in a kernel's scratch memory: each block reads all weights
ROWS_MULTIPLE = 24  # rows of a block: whole tiles of 6, 8 and 12

_byte_at: Any = c_char.from_buffer  # its stub knows of no arrays


def address(array: Array | None) -> int:
    """Of the first element; 0 for no array."""
    if array is None:
        return 0
    try:
        return addressof(_byte_at(array))  # a quarter of what array.ctypes.data takes
    except (TypeError, ValueError):  # read-only, with gaps, or empty
        return int(array.__array_interface__["data"][0])


def rows_at_once(rows: int, row_bytes: int) -> int:
    """Rows of a block, so that all blocks are about equal and none takes more than ROWS_BYTES (if 24 rows do not)."""
    most = max(1, ROWS_BYTES // max(1, row_bytes) // ROWS_MULTIPLE) * ROWS_MULTIPLE
    return max(1, -(-rows // max(1, -(-rows // most))))


class Records:
    """`jobs[d]` of direction d; `works` in the order of threads, those of thread p from starts[p] to starts[p + 1]."""

    def __init__(self, spec: Spec, directions: int, shares: Sequence[Share], threads: int, jobs: Array | None = None) -> None:
        """jobs: those of other records of as many directions, which these run over."""
        self.spec = spec
        self.element = spec.dtype.name
        self.threads = threads
        self.alone = not any(share.thread for share in shares)  # the calling thread does it all
        self.item = spec.dtype.itemsize
        self.lanes = VECTOR_BYTES // self.item
        self.blocks = -(-spec.hidden_size // self.lanes)
        self.out_blocks = -(-spec.output_size // self.lanes)
        # a cache line more than the units: rows of a power of two bytes would fall on the same lines of the cache
        self.row = self.blocks * self.lanes + LINE // self.item
        self.jobs = np.zeros(directions, job_dtype(self.element)) if jobs is None else jobs
        # the same memory as words: writing a field by name through NumPy takes four times as long
        self._words: list[Any] = [job.data for job in self.jobs.view(np.int64).reshape(directions, -1)]
        self.works = aligned_zeros(len(shares) * WORK.itemsize, np.dtype(np.uint8)).view(WORK)
        self.starts = np.searchsorted([share.thread for share in shares], np.arange(threads + 1)).astype(np.int64)
        self._memory: list[Any] = []
        self.bytes = 0  # that are held
        self._flags: dict[int, int] = {}
        for work, share in zip(self.works, shares, strict=True):
            self._place(work, share)

    def _place(self, work: Any, share: Share) -> None:
        work["job"] = self.jobs.ctypes.data + share.direction * self.jobs.itemsize
        work["row_0"], work["row_1"] = share.row_0, share.row_1
        work["panel_0"], work["panel_1"] = share.panel_0, share.panel_1
        work["members"], work["member"], work["yield_address"] = share.members, share.member, YIELD_ADDRESS
        work["words"] = self.hold(aligned_zeros(_WORDS, np.dtype(np.int64)))
        if share.members > 1:
            if share.direction not in self._flags:
                flags = aligned_zeros(share.members * LINE // 8, np.dtype(np.int64))
                flags[1 :: LINE // 8] = SPINS
                self._flags[share.direction] = self.hold(flags)
            work["flags"] = self._flags[share.direction]

    def take_in_turns(self, shares: Sequence[Share]) -> None:
        """Lets works that share rows take panels from each other."""
        claims: dict[int, Array] = {}
        for work, share in zip(self.works, shares, strict=True):
            if share.members == 1:
                continue
            if share.direction not in claims:
                claims[share.direction] = aligned_zeros(share.members * LINE // 8, np.dtype(np.int64)).reshape(-1, LINE // 8)
                self.hold(claims[share.direction])
            claims[share.direction][share.member, 1:3] = share.panel_0, share.panel_1 - share.panel_0
            work["claims"] = address(claims[share.direction])

    def panels(self, work: Any, share: Share, vectors: int) -> None:
        """Panels are `vectors` vectors of units; the work makes these of h too, but for a projected layer."""
        work["panel"] = vectors
        if not self.spec.proj_size:
            work["out_0"], work["out_1"] = share.panel_0 * vectors, min(share.panel_1 * vectors, self.blocks)
        else:
            bounds = cut(-(-self.out_blocks // BACK), share.members)[share.member :]
            work["out_0"], work["out_1"] = bounds[0] * BACK, min(bounds[1] * BACK, self.out_blocks)

    def address_of(self, kernel: Any) -> int:
        return kernel_address(kernel, self.element)

    def tiles(self, *, transposed: bool = False, far: bool = False) -> None:
        """Lets the jobs' kernels multiply: `far`, by weights that no cache holds."""
        addresses = table(self.element, transposed=transposed, far=far)
        for d in range(len(self.jobs)):
            self.set(d, **{"tiles_transposed" if transposed else "tiles": address(addresses)})

    def hold(self, array: Array) -> int:
        """Keeps an array as long as these records and gives its address."""
        self._memory.append(array)
        self.bytes += array.nbytes
        return address(array)

    def room(self, count: int) -> int:
        """The address of `count` elements, not initialised."""
        return self.hold(aligned(count, self.spec.dtype))

    def set(self, direction: int, **fields: int) -> None:
        words = self._words[direction]
        for name, value in fields.items():
            words[JOB_WORD[name]] = value

    def bind(self, direction: int, name: str, array: Array | None, offset: int = 0) -> None:
        """The field of an array (T, B, ..) from `offset` bytes on, and those of its strides, which come next; None: 0."""
        words, at = self._words[direction], JOB_WORD[name]
        words[at] = 0
        if array is not None:
            words[at] = address(array) + offset
            words[at + 1], words[at + 2], _ = array.strides

    def bind_state(self, direction: int, name: str, arrays: Sequence[Array | None]) -> None:
        """A direction's part of state arrays h and c (D, B, ..), h's field by its name, c's the next one."""
        words = self._words[direction]
        for at, array in enumerate(arrays, JOB_WORD[name]):
            words[at] = 0 if array is None else address(array) + direction * array.strides[0]

    def sizes(self, direction: int, spec: Spec, steps: int, batch: int) -> None:
        """What every job holds."""
        row = self.row * self.item
        self.set(direction, T=steps, B=batch, I=spec.input_size, H=spec.hidden_size, P=spec.output_size, lanes=self.lanes)
        self.set(direction, h_b=spec.output_size * self.item, c_b=spec.hidden_size * self.item)
        self.set(direction, reverse=spec.reverse, gates=spec.gates)
        self.set(direction, row=row, h_plane=batch * row, kept_row=row)

    def run(self) -> None:
        """On the calling thread or, with more than one thread, on the team, whose lock the caller holds."""
        TEAMS.run(1 if self.alone else self.threads, self.works, self.starts)
