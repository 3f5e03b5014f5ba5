"""One case: every implementation in turn, over several rounds, on the same weights and input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.harness.answers import check_gradients, check_output, checked_rows, rms
from bench.harness.cases import BASELINE, Case, precision_of
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
    name: str  # the implementation's module, with its precision behind it: `torch-int8`
    kind: str  # what is built: infer, step, train, train-reload

    def on(self, case: Case) -> Entry:
        """The same, with a stream's steps for whole sequences."""
        return replace(self, kind="step") if case.stream else self


@dataclass(frozen=True)
class Taken:
    """The findings of one participant."""

    samples: list[Sample]  # one a round
    rms: float | None  # its outputs' rms error, against float64


def contest(
    case: Case, entries: Sequence[Entry], team: Team, settings: Settings, error: Callable[[str], None]
) -> dict[str, Taken]:
    """The findings by label; what is unsupported is left out, and what fails is reported to `error`."""
    ready: dict[str, Entry] = {}
    found: dict[str, Taken] = {}
    check = _Checks(case, team)
    for entry in (one.on(case) for one in entries if one.name in team.names):
        try:
            off = check(entry, team.build(entry.name, entry.kind, case))
            ready[entry.label], found[entry.label] = entry, Taken([], off)
        except Unsupported:
            continue
        except BenchError as failure:
            error(f"{case}: {failure}")
    for turn in range(settings.rounds):
        order = list(ready.values())
        if order:
            order = order[turn % len(order) :] + order[: turn % len(order)]
        for entry in order:
            try:
                retries = 0 if entry.name == BASELINE else settings.retries
                taken = team.sample(entry.name, entry.kind, settings.budget, retries)
                found[entry.label].samples.append(taken)
            except BenchError as failure:
                error(f"{case}: {failure}")
                del ready[entry.label], found[entry.label]
    return found


class _Checks:
    """Holds each answer to the float64 loop, and whole batches to the first implementation's, as near as precisions allow."""

    def __init__(self, case: Case, team: Team) -> None:
        self._case, self._team = case, team
        self._output: F32 | None = None
        self._gradients: Arrays | None = None
        self._first: tuple[str, F32] | None = None

    def __call__(self, entry: Entry, answer: F32 | Arrays) -> float | None:
        """Gives the rms error of outputs; raises `BenchError` when the answer is wrong."""
        if isinstance(answer, dict):
            if self._gradients is None:
                self._gradients = self._team.reference("gradients", self._case)
            check_gradients(entry.label, answer, self._gradients)
            return None
        rows = checked_rows(self._case)
        if self._output is None:
            self._output = self._team.reference("sequence", checked_case(entry.kind, self._case), rows)
        precision = precision_of(entry.name)
        check_output(entry.label, answer[:, rows], self._output, precision)
        if self._first is None:
            self._first = entry.label, answer
        else:
            check_output(f"{entry.label} against {self._first[0]}", answer, self._first[1], precision)
        return rms(answer[:, rows] - self._output)
