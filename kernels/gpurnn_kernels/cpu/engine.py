"""The CPU backend's sequence-level calls: one layer, all its directions, over NumPy arrays. `protocol.py` has the contract."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..spec import Array, Spec
from .codegen.aligned import address
from .codegen.target import target
from .passes.backward import NR_BACK
from .programs.backward import BackwardProgram, DirectionGradients
from .programs.blocking import choose
from .programs.buffers import ARRAYS
from .programs.forward import ForwardProgram
from .programs.layer import Layer, plan
from .programs.saved import Saved
from .threads.count import get_num_threads
from .threads.partition import schedule
from .threads.team import current_team


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


def _bytes_of_one(spec: Spec) -> int:
    """One direction's part of a row of y."""
    return spec.output_size * spec.dtype.itemsize


def describe(layer: Layer, x: Array, lengths: Array | None) -> str:
    """In one line, what `forward` would run and why, if no other call has the threads."""
    spec, (steps, batch, _) = layer.spec, x.shape
    ways = [str(plan(layer, steps, batch, get_num_threads(), _Order(lengths).lengths))]
    if target().amx:
        ways.append(f"gradients: {choose(spec, steps, batch, target())}")
    return f"{spec.variant}_forward, {spec.dtype.name}, {target()}: {'; '.join(ways)}"


def forward(
    layer: Layer,
    x: Array,
    state: Sequence[Array | None],
    lengths: Array | None,
    y: Array,
    final: Sequence[Array],
    *,
    keep: bool = False,
    x_stays: bool = False,
    y_stays: bool = False,
) -> Saved | None:
    """Runs one layer: fills y (T, B, D * P) and the final state; -> what `backward` reads, if it is to be kept, with copies of
    x and y but for those that stay as they are.

    x (T, B, I) of any strides, but with its inputs side by side where it is kept; y with its units side by side, already zero
    past `lengths`; state arrays (D, B, P) and (D, B, H), contiguous, the initial ones None for zeros; lengths (B,) int64,
    checked.
    """
    steps, batch, _ = x.shape
    directions, of_one = layer.directions, _bytes_of_one(layer.spec)
    x_copy, own_y = x, y
    if keep:
        x_copy = x if x_stays else ARRAYS.lend(x.shape, x.dtype)
        own_y = y if y_stays else ARRAYS.lend(y.shape, y.dtype)
    if batch == 0:
        return Saved(x_copy, own_y, []) if keep else None
    order = _Order(lengths)
    threads = current_team.team.offers(get_num_threads())
    for direction in directions:
        direction.forward(threads)  # packed by all threads; whoever asks first packs alone else
    key = (steps, batch, threads, keep)
    program = layer.programs.forward.take(key) if lengths is None else None
    if program is None:
        program = ForwardProgram(directions, steps, batch, plan(layer, steps, batch, threads, order.lengths), keep=keep)
    else:
        program.use(directions)
    records = program.records
    kept = []
    for d in range(len(directions)):
        records.bind(d, "x", x)
        records.bind(d, "y", own_y, d * of_one)
        if keep:
            # x by one direction for both
            records.bind(d, "x_copy", None if x_stays or d else x_copy)
            records.bind(d, "y_copy", None if y_stays else y, d * of_one)
        for name, arrays in (("h_0", state), ("h_n", final)):
            records.bind_state(d, name, arrays)
        records.set(d, x_i=x.strides[2], **order.fields)
        if program.keeper:
            kept.append(program.keeper.keep())
            records.set(d, **kept[-1].fields)
    records.run()
    if lengths is None:
        layer.programs.forward.give(key, program)
    return Saved(x_copy, own_y, kept) if keep else None


@dataclass(frozen=True)
class LayerGradients:
    x: Array  # (T, B, I)
    parameters: tuple[dict[str, Array], ...]  # a direction each


def backward(
    layer: Layer,
    kept: Saved,
    state: Sequence[Array],
    lengths: Array | None,
    dy: Array | None,
    dfinal: Sequence[Array | None],
    dstate: Sequence[Array],
) -> LayerGradients:
    """Gradients of a call of `forward` with keep=True from an initial state; fills dstate, those of the latter.

    dy (T, B, D * P) with its units side by side; dfinal, of the final state, like the state, contiguous; None for zeros.
    """
    x, y = kept.x, kept.y
    steps, batch, _ = x.shape
    spec, directions, of_one = layer.spec, layer.directions, _bytes_of_one(layer.spec)
    if batch == 0 or steps == 0:
        return _gradients_of_nothing(layer, x, dfinal, dstate)
    order = _Order(lengths)
    found = [DirectionGradients(spec, steps, batch) for _ in directions]
    threads = current_team.team.offers(get_num_threads())
    products = choose(spec, steps, batch, target())
    for direction in directions:
        direction.backward(products, threads)
    key = (steps, batch, threads)
    program = layer.programs.backward.take(key) if lengths is None else None
    if program is None:
        part = schedule(spec, len(directions), batch, threads, target(), NR_BACK, order.lengths)
        program = BackwardProgram(directions, steps, batch, part, products)
    else:
        program.use(directions)
    records = program.records
    for d, one in enumerate(found):
        records.bind(d, "x", x)
        for name, array in (("y", y), ("dy", dy)):
            records.bind(d, name, array, d * of_one)
        for name, arrays in (("h_0", state), ("dh_n", dfinal), ("dh_0", dstate)):
            records.bind_state(d, name, arrays)
        records.set(d, **order.fields, **kept.directions[d].fields, **one.fields())
    program.run(ragged=lengths is not None)
    if lengths is None:
        layer.programs.backward.give(key, program)
    dx = found[0].x
    with np.errstate(all="ignore"):  # gradients may be infinite
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
