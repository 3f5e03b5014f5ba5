"""The CPU backend's sequence-level calls: one layer, all its directions, over NumPy arrays. `protocol.py` has the contract."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..spec import Array, Parameters, Spec
from .amx.choice import choose
from .backward import BACK
from .backward_pass import BackwardProgram, DirectionGradients
from .forward_pass import ForwardProgram
from .kept import Kept
from .records import address
from .schedule import Schedule, schedule, vectors_per_panel
from .shelf import Shelf
from .target import target
from .team import TEAMS, get_num_threads
from .weights import Room, Weights

PROGRAM_BYTES = 16 << 20  # of programs that stay


class Programs:
    """Those of one layer that have run, by T, B and threads, and what its weights pass on: layers with other weights of the
    same shapes use them again."""

    def __init__(self) -> None:
        self.forward: Shelf[ForwardProgram] = Shelf(PROGRAM_BYTES, lambda program: program.bytes)
        self.room = Room()
        self.backward: Shelf[BackwardProgram] = Shelf(PROGRAM_BYTES, lambda program: program.bytes)


class Layer:
    """The packed weights of one layer, a `Weights` a direction, and the programs that run on weights of their shapes."""

    def __init__(self, directions: Sequence[Weights], programs: Programs) -> None:
        self.directions = tuple(directions)
        self.spec = directions[0].spec
        self.programs = programs


def prepare(specs: Sequence[Spec], parameters: Sequence[Parameters], previous: Layer | None = None) -> Layer:
    programs = Programs() if previous is None else previous.programs
    return Layer([Weights(*one, programs.room) for one in zip(specs, parameters, strict=True)], programs)


class _Threads:
    """How many threads a call has, inside: all, or its own when another call has the team."""

    def __enter__(self) -> int:
        wanted = get_num_threads()
        self._together = wanted > 1 and TEAMS.rested() and TEAMS.lock.acquire(blocking=False)
        return wanted if self._together else 1

    def __exit__(self, *_: object) -> None:
        if self._together:
            TEAMS.lock.release()


class _Order:
    """Rows by length, longest first; nothing when they are all alike. `fields`: what a job is told of it."""

    def __init__(self, lengths: Array | None) -> None:
        self.lengths: Array | None = None
        self.fields: dict[str, int] = {}
        if lengths is not None:
            self._batch, self._rows = lengths, np.argsort(-lengths, kind="stable")
            self.lengths = lengths[self._rows]
            arrays = {"order": self._rows, "lengths": self.lengths, "batch_lengths": self._batch}
            self.fields = {name: address(array) for name, array in arrays.items()}


def _of_rows(name: str, array: Array, offset: int = 0) -> dict[str, int]:
    """What a job is told of x, y or dy (T, B, ..), from `offset` bytes on."""
    by_step, by_row, _ = array.strides
    return {name: address(array) + offset, f"{name}_t": by_step, f"{name}_b": by_row}


def _of_state(names: Sequence[str], arrays: Sequence[Array | None], direction: int) -> dict[str, int]:
    """A direction's addresses in state arrays (D, B, ..), by the fields of a job."""
    return {
        name: 0 if array is None else address(array) + direction * array.strides[0]
        for name, array in zip(names, arrays, strict=False)
    }


def plan(layer: Layer, batch: int, threads: int, lengths: Array | None = None) -> Schedule:
    """How a call with `batch` rows is shared out; lengths: of the rows, longest first."""
    spec = layer.spec
    return schedule(spec, len(layer.directions), batch, threads, target(), vectors_per_panel(spec), lengths)


def describe(layer: Layer, x: Array, lengths: Array | None) -> str:
    """In one line, what `forward` would run and why, if no other call has the threads."""
    spec = layer.spec
    shared = plan(layer, x.shape[1], get_num_threads(), _Order(lengths).lengths)
    return f"{spec.variant}_forward, {spec.dtype.name}, {target()}: {shared}"


def forward(
    layer: Layer,
    x: Array,
    state: Sequence[Array | None],
    lengths: Array | None,
    y: Array,
    final: Sequence[Array],
    *,
    keep: bool = False,
) -> Sequence[Kept]:
    """Runs one layer: fills y (T, B, D * P) and the final state; -> what `backward` reads, if it is to be kept.

    x (T, B, I) of any strides; y with its units side by side, already zero past `lengths`; state arrays (D, B, P)
    and (D, B, H), contiguous, the initial ones None for zeros; lengths (B,) int64, checked.
    """
    steps, batch, _ = x.shape
    directions, part = layer.directions, layer.spec.output_size * layer.spec.dtype.itemsize
    if batch == 0:
        return []
    order = _Order(lengths)
    with _Threads() as threads:
        for direction in directions:
            direction.forward(threads)  # packed by all threads; whoever asks first packs alone else
        key = (steps, batch, threads, keep)
        program = layer.programs.forward.take(key) if lengths is None else None
        if program is None:
            program = ForwardProgram(directions, steps, batch, plan(layer, batch, threads, order.lengths), keep=keep)
        else:
            program.use(directions)
        records = program.records
        kept = []
        for d in range(len(directions)):
            records.set(d, **_of_rows("x", x), x_i=x.strides[2], **_of_rows("y", y, d * part), **order.fields)
            records.set(d, **_of_state(("h_0", "c_0"), state, d), **_of_state(("h_n", "c_n"), final, d))
            if program.keeper:
                kept.append(program.keeper.keep())
                records.set(d, **kept[-1].fields)
        records.run()
        if lengths is None:
            layer.programs.forward.give(key, program)
    return kept


@dataclass(frozen=True)
class LayerGradients:
    x: Array  # (T, B, I)
    parameters: tuple[dict[str, Array], ...]  # a direction each


def backward(
    layer: Layer,
    kept: Sequence[Kept],
    x: Array,
    y: Array,
    state: Sequence[Array],
    lengths: Array | None,
    dy: Array | None,
    dfinal: Sequence[Array | None],
    dstate: Sequence[Array],
) -> LayerGradients:
    """Gradients of a call of `forward` with keep=True, its arrays as it left them and x's inputs side by side; fills dstate,
    those of the initial state.

    dy (T, B, D * P) with its units side by side; dfinal, of the final state, like the state, contiguous; None for zeros.
    """
    steps, batch, _ = x.shape
    spec, directions = layer.spec, layer.directions
    part = spec.output_size * spec.dtype.itemsize
    if batch == 0 or steps == 0:
        return _gradients_of_nothing(layer, x, dfinal, dstate)
    order = _Order(lengths)
    found = [DirectionGradients(spec, steps, batch) for _ in directions]
    with _Threads() as threads:
        products = choose(spec, steps, batch)
        for direction in directions:
            direction.backward(products, threads)
        key = (steps, batch, threads)
        program = layer.programs.backward.take(key) if lengths is None else None
        if program is None:
            share = schedule(spec, len(directions), batch, threads, target(), BACK, order.lengths)
            program = BackwardProgram(directions, steps, batch, share, products)
        else:
            program.use(directions)
        records = program.records
        for d, one in enumerate(found):
            of_dy = {"dy": 0} if dy is None else _of_rows("dy", dy, d * part)
            records.set(d, **_of_rows("x", x), **_of_rows("y", y, d * part), **of_dy, **order.fields)
            records.set(d, **_of_state(("h_0", "c_0"), state, d), **_of_state(("dh_n", "dc_n"), dfinal, d))
            records.set(d, **_of_state(("dh_0", "dc_0"), dstate, d), **kept[d].fields, **one.fields())
        program.run(ragged=lengths is not None)
        if lengths is None:
            layer.programs.backward.give(key, program)
    dx = found[0].x
    for other in found[1:]:
        dx += other.x
    return LayerGradients(dx, tuple(one.parameters() for one in found))


def _gradients_of_nothing(layer: Layer, x: Array, dfinal: Sequence[Array | None], dstate: Sequence[Array]) -> LayerGradients:
    """Without a step, the state's gradient passes through and all else is zero."""
    for first, last in zip(dstate, dfinal, strict=True):
        first[...] = 0 if last is None else last
    parameters = tuple(
        {name: np.zeros_like(array) for name, array in direction.parameters.items()} for direction in layer.directions
    )
    return LayerGradients(np.zeros_like(x), parameters)
