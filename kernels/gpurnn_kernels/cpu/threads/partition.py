"""The partition of a layer's work: its directions, rows and units are shared out to threads.

There are three ways, and the cost model chooses the cheapest. The bits are the same in all of them:
    one     one thread does it all;
    rows    each thread takes rows of the batch through the whole sequence;
    units   all threads make panels of units of all rows, step by step: a phase ends when all its panels are done.
Two directions are independent: on two threads each has one; more threads take them in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...spec import Array, Spec
from ..codegen.target import LINE, Target
from ..products.formats import format_of

Split = Literal["one", "rows", "units"]

# Costs by vector registers, in multiply-adds of a vector: one or two a cycle with 32 registers, two of half the length with
# 16. Fitted to forced splits on a Xeon with AVX-512 and on a Zen 3.
_PHASE = {32: 1500.0, 16: 2000.0}  # the end of a phase
_HANDED = {32: 180.0, 16: 0.0}  # a cache line that another thread has written: far on a mesh of cores, near within a cluster
_UNIT = {32: 70.0, 16: 100.0}  # the cell equations of one vector of units of one row
_READ = 2.3  # a vector of weights from L2: so much a tile takes at least
_READ_FAR = {32: 11.0, 16: 2.3}  # a vector of weights that L2 does not hold
_WAIT_FAR = {32: 4.0, 16: 0.0}  # what multiply-adds of many rows wait for it
_NEAR_BYTES = {32: 1 << 20, 16: 1 << 19}  # of weights: more may not stay in L2 beside all else
_SHARED = {32: 1.0, 16: 1.06}  # times as long take two threads that both read such weights
_LEAST_CALL = 150_000.0  # a call that threads share: about 50 us
# what units may cost more than rows: threads that share rows help each other where one has not its CPU to itself
_HELPED = 0.95


@dataclass(frozen=True)
class Part:
    """One thread's part of one direction: rows [row_begin, row_end) x panels [panel_begin, panel_end). Threads that make
    panels of the same rows have the same part."""

    direction: int
    thread: int
    row_begin: int
    row_end: int
    panel_begin: int
    panel_end: int
    team_size: int = 1  # threads that make panels of the same rows
    rank: int = 0


@dataclass(frozen=True)
class Schedule:
    splits: tuple[Split, ...]  # one a direction
    parts: tuple[Part, ...]  # by thread
    threads: int  # that were offered
    reason: str

    def __str__(self) -> str:
        return self.reason


def cut(count: int, parts: int) -> list[int]:
    """Gives the bounds of `parts` stretches of as equal length as can be."""
    return [count * part // parts for part in range(parts + 1)]


def _tile_cost(rows: int, wide: int, split: bool, beyond_l2: bool, machine: Target) -> float:
    """Estimates the cost of one vector of weights for all rows, in tiles of wide panels. split: as `tile_rows` takes it.
    beyond_l2: L2 does not hold the weights."""
    tiles = -(-rows // machine.tile_rows(wide, split))
    heights = [rows // tiles + (tile < rows % tiles) for tile in range(tiles)]
    # with eight sums, no multiply-add may be late
    near = sum(max(_READ, height * (1.1 if height * wide <= 8 else 1.0)) for height in heights)
    return max(near + _WAIT_FAR[machine.registers], _READ_FAR[machine.registers]) if beyond_l2 else near


def step_cost(spec: Spec, rows: int, vectors: int, machine: Target) -> float:
    """Estimates the cost of a step, `rows` rows x `vectors` vectors of units. The input is projected many steps at a time."""
    format = format_of(spec)
    depth = spec.gates * format.depth(spec.output_size) + format.depth(spec.proj_size)
    beyond_l2 = depth * vectors * machine.vector_bytes >= _NEAR_BYTES[machine.registers]
    wide = format.wide(format.depth(spec.output_size), machine)
    tiles = _tile_cost(rows, wide, format.split, beyond_l2, machine) if rows else 0.0
    return vectors * (depth * tiles + (spec.gates * format.depth(spec.input_size) + _UNIT[machine.registers]) * rows)


def worth_sharing(spec: Spec, batch: int, steps: int, machine: Target) -> bool:
    """Tells whether a call takes so long that other threads are woken for it."""
    vectors = -(-spec.hidden_size // machine.lanes(spec.dtype.itemsize))
    return steps * step_cost(spec, batch, vectors, machine) >= _LEAST_CALL


def _phase_cost(spec: Spec, rows: int, crew: int, machine: Target) -> float:
    """Estimates what a phase costs threads that share `rows` rows: its end, and reading the part of h that others made."""
    lines = -(-spec.output_size * spec.dtype.itemsize // LINE) * (crew - 1) / crew
    return _PHASE[machine.registers] + _HANDED[machine.registers] * rows * lines


def schedule(
    spec: Spec,
    directions: int,
    batch: int,
    threads: int,
    machine: Target,
    vectors: int,
    lengths: Array | None = None,
    *,
    steps: int | None = None,
) -> Schedule:
    """Shares out the recurrence of one layer. vectors: of units in a panel. lengths: of the rows, longest first, where they
    differ; then rows are shared out by their steps. steps: of the call, where they are known."""
    panels = -(-spec.hidden_size // (machine.lanes(spec.dtype.itemsize) * vectors))
    splits: list[Split] = []
    parts: list[Part] = []
    apart = threads <= directions
    reasons = []
    for direction in range(directions):
        crew: Sequence[int] = [direction % threads] if apart else range(threads)
        split, reason = _choose(spec, batch, panels, vectors, len(crew), machine, steps)
        splits.append(split)
        reasons.append(reason)
        rows = cut(batch, min(len(crew), max(1, batch))) if lengths is None else cut_by_steps(lengths, len(crew))
        parts += _share_out(direction, crew, split, rows, panels)
    # those of threads that make panels of the same rows stand side by side
    parts.sort(key=lambda part: (part.team_size > 1 and part.direction, part.thread))
    text = reasons[0] if len(set(reasons)) == 1 else "; ".join(reasons)
    if directions > 1:
        at_once = threads > 1 and (apart or splits[0] == "one")
        text = f"{'both directions at once' if at_once else 'one direction after the other'}, each: {text}"
    return Schedule(tuple(splits), tuple(parts), threads, text)


def cut_by_steps(lengths: Array, parts: int) -> list[int]:
    """Gives the bounds of stretches of rows with about as many steps each."""
    done = np.concatenate([[0], np.cumsum(lengths)])
    wanted = done[-1] * np.arange(parts + 1) / parts
    after = np.searchsorted(done, wanted)
    before = np.maximum(after - 1, 0)
    bounds: list[int] = np.where(wanted - done[before] < done[after] - wanted, before, after).tolist()
    return [0, *bounds[1:-1], len(lengths)]


def _choose(
    spec: Spec, batch: int, panels: int, vectors: int, crew: int, machine: Target, steps: int | None = None
) -> tuple[Split, str]:
    if crew == 1:
        return "one", "one thread"
    costs: dict[Split, float] = {"one": step_cost(spec, batch, panels * vectors, machine)}
    if steps is not None and not worth_sharing(spec, batch, steps, machine):
        return "one", "one thread: to wake others would take longer than they save"
    if batch > 1:
        near = spec.gates * spec.hidden_size * spec.output_size * spec.dtype.itemsize <= _NEAR_BYTES[machine.registers]
        rows = step_cost(spec, -(-batch // crew), panels * vectors, machine)
        costs["rows"] = rows * (1.0 if near else _SHARED[machine.registers])
    if panels > 1:
        most = -(-panels // crew) * vectors
        costs["units"] = step_cost(spec, batch, most, machine) + spec.phases * _phase_cost(spec, batch, crew, machine)
    best = min(costs, key=lambda split: costs[split] * (_HELPED if split == "units" else 1.0))
    figures = ", ".join(f"{split} {cost / 1000:.1f}" for split, cost in costs.items())
    words = {
        "one": "one thread: sharing each step would cost more than it saves",
        "rows": f"rows split over {crew} threads",
        "units": f"units split over {crew} threads, {spec.phases} phase{'s' if spec.phases > 1 else ''} a step",
    }
    return best, f"{words[best]} (estimated cost of a step, thousands of multiply-adds: {figures})"


def _share_out(direction: int, crew: Sequence[int], split: Split, rows: list[int], panels: int) -> list[Part]:
    if split == "one":
        return [Part(direction, crew[direction % len(crew)], 0, rows[-1], 0, panels)]
    if split == "rows":
        return [Part(direction, t, a, b, 0, panels) for t, a, b in zip(crew, rows, rows[1:], strict=False)]
    team_size = len(crew)
    return [Part(direction, crew[m], 0, rows[-1], 0, panels, team_size, m) for m in range(team_size)]
