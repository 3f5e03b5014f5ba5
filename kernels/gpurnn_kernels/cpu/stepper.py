"""One step of a stack of one-directional layers, made ready once: what streaming calls again and again.

A step binds two addresses and runs; nothing is allocated. It runs on the team when the schedule asks for threads and the
team is free, else on the calling thread: the same bits.
"""

from collections.abc import Sequence

import numpy as np

from ..spec import Array
from .compile import entry
from .engine import Layer, plan
from .forward_pass import ForwardProgram
from .job import job_dtype
from .memory import store_word
from .packing import aligned
from .records import Records, address
from .team import TEAMS, get_num_threads, run_works


@entry("void(float32[:, ::1], float32[:, ::1], int64, int64, int64, int64)")
def _step_float32(x, out, x_at, out_at, works, count):  # type: ignore[no-untyped-def]
    store_word(x_at, x.ctypes.data)
    store_word(out_at, out.ctypes.data)
    run_works(works, 0, count)


@entry("void(float64[:, ::1], float64[:, ::1], int64, int64, int64, int64)")
def _step_float64(x, out, x_at, out_at, works, count):  # type: ignore[no-untyped-def]
    store_word(x_at, x.ctypes.data)
    store_word(out_at, out.ctypes.data)
    run_works(works, 0, count)


class Stepper:
    """Steps over state arrays (L, B, H), moved on in place."""

    def __init__(self, layers: Sequence[Layer], batch: int, state: Sequence[Array]) -> None:
        self._layers = layers
        self._batch = batch
        self._state = state
        spec = layers[0].spec
        self._between = [aligned(batch * spec.hidden_size, spec.dtype).reshape(batch, -1) for _ in layers[1:]]
        self._run = _step_float32 if spec.dtype == np.float32 else _step_float64
        self._threads = 0  # that the programs were made for
        self._alone = self._records(1)
        self._chain = np.concatenate([records.works for records in self._alone])
        x_at, y_at = (job_dtype(spec.dtype.name).fields[name][1] for name in ("x", "y"))  # type: ignore[index]
        first, last = (self._alone[i].jobs.ctypes.data for i in (0, -1))
        self._fixed = (first + x_at, last + y_at, self._chain.ctypes.data, len(self._chain))
        self._team: list[Records] = []

    def _records(self, threads: int) -> list[Records]:
        """A program a layer, each fed by the one before."""
        made = []
        for i, layer in enumerate(self._layers):
            spec = layer.spec
            records = ForwardProgram(layer.directions, 1, self._batch, plan(layer, self._batch, threads)).records
            records.set(0, x_b=spec.input_size * records.item, x_i=records.item, y_b=spec.hidden_size * records.item)
            if i > 0:
                records.set(0, x=address(self._between[i - 1]))
            if i + 1 < len(self._layers):
                records.set(0, y=address(self._between[i]))
            for name, array in zip(("h", "c"), self._state, strict=False):
                records.set(0, **{f"{name}_0": address(array[i]), f"{name}_n": address(array[i])})
            made.append(records)
        return made

    def step(self, x: Array, out: Array) -> None:
        """x (B, I) -> out (B, H), both contiguous."""
        if self._threads != get_num_threads():
            self._threads = get_num_threads()
            chain = self._records(self._threads)
            self._team = chain if any(records.threads > 1 for records in chain) else []
        if self._team and TEAMS.lock.acquire(blocking=False):
            try:
                self._team[0].set(0, x=address(x))
                self._team[-1].set(0, y=address(out))
                for records in self._team:
                    records.run()
            finally:
                TEAMS.lock.release()
        else:
            self._run(x, out, *self._fixed)
