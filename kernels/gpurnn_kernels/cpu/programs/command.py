"""Records hold the memory of one command to the team: jobs, shares, and everything that they point to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...spec import Array, Spec
from ..codegen.aligned import address, aligned, aligned_zeros
from ..codegen.compile import kernel_address
from ..codegen.descriptors import JOB_WORD, SHARE, VECTOR_BYTES, job_dtype
from ..codegen.target import LINE
from ..products.formats import format_of
from ..products.microkernel import WIDTHS, table
from ..threads.partition import Part, cut
from ..threads.phases import MOMENT
from ..threads.team import current_team
from .blocking import Blocking

PHASE_KERNELS = ("step_kernel", "second_kernel")  # a job's, of the phases of a step
_WORDS = 32  # words of a bundle: those of one vector, and their steps


class Records:
    """The jobs and shares of a command. `jobs[d]` is direction d's; `shares` stand in the order of threads, thread p's from
    starts[p] to starts[p + 1]."""

    def __init__(self, spec: Spec, directions: int, parts: Sequence[Part], threads: int, jobs: Array | None = None) -> None:
        """jobs: those of other records of as many directions, for a command over the same jobs."""
        self.spec = spec
        self.element = spec.dtype.name
        self.threads = threads
        self.alone = not any(part.thread for part in parts)  # the calling thread does it all
        self.item = spec.dtype.itemsize
        self.lanes = VECTOR_BYTES // self.item
        self.blocks = -(-spec.hidden_size // self.lanes)
        self.out_blocks = -(-spec.output_size // self.lanes)
        # a cache line more than the units: rows of a power of two bytes would fall on the same lines of the cache
        self.row = self.blocks * self.lanes + LINE // self.item
        self.jobs = np.zeros(directions, job_dtype(self.element)) if jobs is None else jobs
        # the same memory as words: writing a field by name through NumPy takes four times as long
        self._words: list[Any] = [job.data for job in self.jobs.view(np.int64).reshape(directions, -1)]
        self.shares = aligned_zeros(len(parts) * SHARE.itemsize, np.dtype(np.uint8)).view(SHARE)
        self.starts = np.searchsorted([part.thread for part in parts], np.arange(threads + 1)).astype(np.int64)
        self._memory: list[Any] = []
        self.bytes = 0  # of memory that the records hold
        for share, part in zip(self.shares, parts, strict=True):
            self._describe(share, part)

    def _describe(self, share: Any, part: Part) -> None:
        share["job"] = self.jobs.ctypes.data + part.direction * self.jobs.itemsize
        share["row_begin"], share["row_end"] = part.row_begin, part.row_end
        share["panel_begin"], share["panel_end"] = part.panel_begin, part.panel_end
        share["team_size"], share["rank"] = part.team_size, part.rank
        share["words"] = self.hold(aligned_zeros(_WORDS, np.dtype(np.int64)))
        share["leads"] = part.team_size if part.team_size > 1 else 0
        share["patience"] = MOMENT

    def blocking(self, share: Any, part: Part, blocking: Blocking, *pieces: int) -> None:
        """Has a share go through its work as `blocking` says; pieces: of what comes after the phases of a step. Each phase is
        told which of its groups are meant for which thread."""
        share["row_cap"], share["at_once"] = blocking.rows, blocking.at_once
        for phase, count in enumerate((blocking.groups, blocking.second_groups, *pieces), 1):
            share[f"groups_{phase}"] = count
            share[f"cuts_{phase}"] = self.hold(np.array(cut(count, part.team_size), np.int64))

    def panels(self, share: Any, vectors: int) -> None:
        """Has a share make all panels of units, `vectors` vectors each, and all vectors of h."""
        share["panel"], share["panel_end"], share["out_end"] = vectors, -(-self.blocks // vectors), self.out_blocks

    def address_of(self, kernel: Any) -> int:
        return kernel_address(kernel, self.element)

    def kernels(self, kernels: Mapping[str, Any]) -> None:
        """Has all jobs call these kernels, by the fields of a job."""
        addresses = {name: self.address_of(kernel) for name, kernel in kernels.items()}
        for d in range(len(self.jobs)):
            self.set(d, **addresses)

    def tiles(self, widths: Sequence[int] = WIDTHS, *, transposed: bool = False, prefetch: bool = False) -> None:
        """Gives all jobs the tables of the kernels that multiply. prefetch: they fetch the next panel, of
        weights that a core's own cache does not hold."""
        format = "float" if transposed else format_of(self.spec).name
        addresses = table(self.element, format, widths, transposed=transposed, prefetch=prefetch)
        for d in range(len(self.jobs)):
            self.set(d, **{"tiles_transposed" if transposed else "tiles": address(addresses)})

    def hold(self, array: Array) -> int:
        """Keeps an array as long as these records live, and gives its address."""
        self._memory.append(array)
        self.bytes += array.nbytes
        return address(array)

    def allocate(self, count: int) -> int:
        """Gives the address of `count` new elements, not initialised."""
        return self.hold(aligned(count, self.spec.dtype))

    def set(self, direction: int, **fields: int) -> None:
        words = self._words[direction]
        for name, value in fields.items():
            words[JOB_WORD[name]] = value

    def bind(self, direction: int, name: str, array: Array | None, offset: int = 0) -> None:
        """Sets the field of an array (T, B, ..) from `offset` bytes on, and those of its strides, which come next; None: 0."""
        words, at = self._words[direction], JOB_WORD[name]
        words[at] = 0
        if array is not None:
            words[at] = address(array) + offset
            words[at + 1], words[at + 2], _ = array.strides

    def bind_state(self, direction: int, name: str, arrays: Sequence[Array | None]) -> None:
        """Sets the fields of a direction's part of state arrays h and c (D, B, ..): h's by its name, and c's, the next one."""
        words = self._words[direction]
        for at, array in enumerate(arrays, JOB_WORD[name]):
            words[at] = 0 if array is None else address(array) + direction * array.strides[0]

    def sizes(self, direction: int, spec: Spec, steps: int, batch: int) -> None:
        """Sets the fields that every job has."""
        row = self.row * self.item
        self.set(direction, T=steps, B=batch, I=spec.input_size, H=spec.hidden_size, P=spec.output_size, lanes=self.lanes)
        self.set(direction, h_b=spec.output_size * self.item, c_b=spec.hidden_size * self.item)
        self.set(direction, reverse=spec.reverse, gates=spec.gates)
        self.set(direction, row=row, unit_row=row)

    def run(self) -> None:
        """Runs the command on the calling thread and, where shares are meant for more than one, on the team's."""
        current_team.team.run(1 if self.alone else self.threads, self.shares, self.starts)
