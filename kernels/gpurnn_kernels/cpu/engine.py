"""The CPU backend's sequence-level calls: one layer, all its directions, over NumPy arrays. `protocol.py` has the contract."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..spec import Array, Parameters, Spec
from .amx.choice import choose
from .backward import BACK
from .backward_pass import BackwardProgram, DirectionGradients
from .forward_pass import ForwardProgram, Kept
from .records import Records, address
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


@contextmanager
def _threads() -> Iterator[int]:
    """How many threads this call has: all, or its own when another call has the team."""
    wanted = get_num_threads()
    if wanted > 1 and TEAMS.rested() and TEAMS.lock.acquire(blocking=False):
        try:
            yield wanted
        finally:
            TEAMS.lock.release()
    else:
        yield 1


class _Order:
    """Rows by length, longest first; nothing when they are all alike."""

    def __init__(self, lengths: Array | None) -> None:
        self.batch = lengths
        self.rows = None if lengths is None else np.argsort(-lengths, kind="stable")
        self.lengths = None if lengths is None else lengths[self.rows]

    def bind(self, records: Records, direction: int) -> None:
        records.set(direction, order=address(self.rows), lengths=address(self.lengths), batch_lengths=address(self.batch))


def _bind_sequences(records: Records, direction: int, x: Array, y: Array) -> None:
    """x (T, B, I) and this direction's part of y (T, B, D * P)."""
    records.set(direction, x=address(x), x_t=x.strides[0], x_b=x.strides[1], x_i=x.strides[2])
    offset = direction * records.spec.output_size * records.item
    records.set(direction, y=address(y) + offset, y_t=y.strides[0], y_b=y.strides[1])


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
    directions = layer.directions
    if batch == 0:
        return []
    order = _Order(lengths)
    with _threads() as threads:
        for direction in directions:
            direction.forward(threads)  # packed by all threads; whoever asks first packs alone else
        key = (steps, batch, threads)
        program = layer.programs.forward.take(key) if lengths is None else None
        if program is None:
            program = ForwardProgram(directions, steps, batch, plan(layer, batch, threads, order.lengths))
        else:
            program.use(directions)
        records = program.records
        for d in range(len(directions)):
            _bind_sequences(records, d, x, y)
            order.bind(records, d)
            for name, first, last in zip(("h", "c"), state, final, strict=False):
                records.set(d, **{f"{name}_0": address(None if first is None else first[d]), f"{name}_n": address(last[d])})
        kept = program.keep() if keep else []
        records.run()
        if keep:
            program.keep_nothing()
        if lengths is None:
            layer.programs.forward.give(key, program)
    return kept


@dataclass(frozen=True)
class LayerGradients:
    x: Array  # (T, B, I)
    state: tuple[Array, ...]  # (D, B, P) and (D, B, H)
    parameters: tuple[dict[str, Array], ...]  # a direction each


def backward(
    layer: Layer,
    kept: Sequence[Kept],
    x: Array,
    y: Array,
    state: Sequence[Array],
    lengths: Array | None,
    dy: Array | None,
    dstate: Sequence[Array | None],
) -> LayerGradients:
    """Gradients of a call of `forward` with keep=True, its arrays as it left them and x's inputs side by side.

    dy (T, B, D * P) with its units side by side, dstate like the state, contiguous; None for zeros.
    """
    steps, batch, _ = x.shape
    spec, directions = layer.spec, layer.directions
    if batch == 0 or steps == 0:
        return _gradients_of_nothing(layer, x, state, dstate)
    order = _Order(lengths)
    with _threads() as threads:
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
        gradients = []
        for d, direction in enumerate(directions):
            one = DirectionGradients(records, direction.spec, steps, batch, ragged=lengths is not None)
            gradients.append(one)
            one.bind(records, d)
            program.bind(d, kept[d])
            order.bind(records, d)
            _bind_sequences(records, d, x, y)
            offset = d * spec.output_size * records.item
            records.set(d, dy=0)
            if dy is not None:
                records.set(d, dy=address(dy) + offset, dy_t=dy.strides[0], dy_b=dy.strides[1])
            for name, first, last in zip(("h", "c"), state, dstate, strict=False):
                records.set(d, **{f"{name}_0": address(first[d]), f"d{name}_n": address(None if last is None else last[d])})
        program.run()
        if lengths is None:
            layer.programs.backward.give(key, program)
    for one in gradients:
        one.done()
    dx = gradients[0].x
    for other in gradients[1:]:
        dx += other.x
    states = tuple(np.stack([one.state[i] for one in gradients]) for i in range(len(spec.state_sizes)))
    return LayerGradients(dx, states, tuple(one.parameters() for one in gradients))


def _gradients_of_nothing(layer: Layer, x: Array, state: Sequence[Array], dstate: Sequence[Array | None]) -> LayerGradients:
    """Without a step, the state's gradient passes through and all else is zero."""
    states = tuple(np.zeros_like(first) if last is None else last.copy() for first, last in zip(state, dstate, strict=True))
    parameters = tuple(
        {name: np.zeros_like(array) for name, array in direction.parameters.items()} for direction in layer.directions
    )
    return LayerGradients(np.zeros_like(x), states, parameters)
