"""All implementations of one thread count, each alive in its own process and commanded one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from bench.harness.errors import BenchError, Missing
from bench.harness.machine import Others, disturbed
from bench.harness.process import Worker
from bench.harness.timing import Sample
from bench.limits.measure import Limits, best_of


class Team:
    """Starts the workers that are wanted and installed; a worker that died is started again for its next command."""

    def __init__(self, names: Sequence[str], threads: int, fail: Callable[[str], None]) -> None:
        self.threads = threads
        self.names: list[str] = []
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._workers: dict[str, Worker] = {}
        for name in names:
            try:
                self.versions[name] = self._worker(name).call("version")
                self.names.append(name)
            except Missing as missing:
                self.missing[name] = str(missing)
            except BenchError as error:
                fail(str(error))

    def _worker(self, name: str) -> Worker:
        worker = self._workers.get(name)
        if worker is None or not worker.alive:
            worker = self._workers[name] = Worker(name, self.threads)
        return worker

    def build(self, name: str, kind: str, case: Case) -> F32 | Arrays:
        """Builds in the worker, and gives its first answer, once it is quiet again."""
        answer: F32 | Arrays = self._worker(name).call("build", kind, case)
        self._worker(name).call("rest")
        return answer

    def sample(self, name: str, kind: str, budget: float, retries: int) -> Sample:
        """The least disturbed of at most 1 + retries samples; a sample that nothing disturbs is not repeated."""
        best: Sample | None = None
        for _ in range(retries + 1):
            taken = self._sample_once(name, kind, budget)
            if best is None or taken.others < best.others:
                best = taken
            if not disturbed(best.others, self.threads):
                break
        if best is None:
            raise ValueError(f"retries must not be negative, received {retries}")
        return best

    def _sample_once(self, name: str, kind: str, budget: float) -> Sample:
        worker = self._workers[name]
        if not worker.alive:
            raise BenchError(f"{name}: the process has ended")
        others = Others()
        sample: Sample
        sample, cpu = worker.call("sample", kind, budget)
        return replace(sample, others=others.cpus(cpu))

    def reference(self, command: str, *arguments: Any) -> Any:
        """An answer in float64."""
        answer = self._worker("reference").call(command, *arguments)
        self._worker("reference").call("rest")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers.values():
            worker.close()


def measure_limits(threads: int, tries: int = 3) -> Limits:
    """The machine's limits, measured in a process of their own; again, at most `tries` times, while others disturb."""
    best: Limits | None = None
    with Worker("machine", threads) as worker:
        for _ in range(tries):
            others = Others()
            limits, cpu = worker.call("limits")
            taken = replace(limits, others=others.cpus(cpu))
            best = taken if best is None else best_of(best, taken)
            if not disturbed(taken.others, threads):
                break
    if best is None:
        raise ValueError(f"tries must be positive, received {tries}")
    return best
