"""One case: every implementation in turn, over several rounds, on the same weights and input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.harness.answers import check_gradients, check_output, checked_rows
from bench.harness.cases import BASELINE, Case
from bench.harness.data import F32, Arrays
from bench.harness.errors import BenchError, Unsupported
from bench.harness.team import Team
from bench.harness.timing import Sample
from bench.harness.worker import checked_case


@dataclass(frozen=True)
class Settings:
    """How long and how often to measure."""

    rounds: int
    budget: float  # seconds a sample
    retries: int  # more samples at most, where others keep the machine busy


@dataclass(frozen=True)
class Entry:
    """A participant, under a label of its own."""

    label: str
    name: str  # the implementation's module
    kind: str  # what is built: infer, step, train, train-reload


def contest(
    case: Case, entries: Sequence[Entry], team: Team, settings: Settings, error: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Samples by label, one a round; what is unsupported is left out, and what fails is reported to `error`."""
    ready: dict[str, Entry] = {}
    check = _Checks(case, team)
    for entry in entries:
        if entry.name not in team.names:
            continue
        try:
            check(entry, team.build(entry.name, entry.kind, case))
            ready[entry.label] = entry
        except Unsupported:
            continue
        except BenchError as failure:
            error(f"{case}: {failure}")
    samples: dict[str, list[Sample]] = {label: [] for label in ready}
    for turn in range(settings.rounds):
        order = list(ready.values())
        if order:
            order = order[turn % len(order) :] + order[: turn % len(order)]
        for entry in order:
            try:
                retries = 0 if entry.name == BASELINE else settings.retries
                taken = team.sample(entry.name, entry.kind, settings.budget, retries)
                samples[entry.label].append(taken)
            except BenchError as failure:
                error(f"{case}: {failure}")
                del ready[entry.label], samples[entry.label]
    return samples


class _Checks:
    """Holds each answer to the float64 loop, and whole batches to the first implementation's."""

    def __init__(self, case: Case, team: Team) -> None:
        self._case, self._team = case, team
        self._output: F32 | None = None
        self._gradients: Arrays | None = None
        self._first: tuple[str, F32] | None = None

    def __call__(self, entry: Entry, answer: F32 | Arrays) -> None:
        """Raises `BenchError` when the answer is wrong."""
        if isinstance(answer, dict):
            if self._gradients is None:
                self._gradients = self._team.reference("gradients", self._case)
            check_gradients(entry.label, answer, self._gradients)
            return
        rows = checked_rows(self._case)
        if self._output is None:
            self._output = self._team.reference("sequence", checked_case(entry.kind, self._case), rows)
        check_output(entry.label, answer[:, rows], self._output)
        if self._first is None:
            self._first = entry.label, answer
        else:
            check_output(f"{entry.label} against {self._first[0]}", answer, self._first[1])
