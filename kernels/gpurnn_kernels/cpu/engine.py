"""The CPU backend's sequence-level calls: one layer, all its directions, over NumPy arrays. `protocol.py` has the contract."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..spec import Array, Spec
from .codegen.aligned import address
from .codegen.target import target
from .products.formats import format_of
from .products.gemm import NR_BACK
from .programs.backward import BackwardProgram, DirectionGradients
from .programs.blocking import choose
from .programs.forward import ForwardProgram
from .programs.layer import Layer, plan
from .programs.saved import Saved
from .threads.count import get_num_threads
from .threads.partition import schedule
from .threads.team import current_team


class _Order:
    """The order of rows by length, longest first; none when all have T steps. `fields`: where a job finds it."""

    def __init__(self, lengths: Array | None) -> None:
        self.lengths: Array | None = None
        self.fields: dict[str, int] = {}
        if lengths is not None:
            self._batch, self._rows = lengths, np.argsort(-lengths, kind="stable")
            self.lengths = lengths[self._rows]
            arrays = {"order": self._rows, "lengths": self.lengths, "batch_lengths": self._batch}
            self.fields = {name: address(array) for name, array in arrays.items()}


def _row_bytes(spec: Spec) -> int:
    """Bytes of one direction's part of a row of y."""
    return spec.output_size * spec.dtype.itemsize


def describe(layer: Layer, x: Array, lengths: Array | None) -> str:
    """Says in one line how `forward` would run and why, if no other call has the threads."""
    spec, (steps, batch, _) = layer.spec, x.shape
    ways = [str(plan(layer, steps, batch, get_num_threads(), _Order(lengths).lengths))]
    if target().amx and not format_of(spec).convert:
        ways.append(f"gradients: {choose(spec, steps, batch, target())}")
    format = format_of(spec)
    products = f" with products in {format.name} by {format.how}" if format.convert else ""
    return f"{spec.variant}_forward, {spec.dtype.name}{products}, {target()}: {'; '.join(ways)}"


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
    """Runs one layer: fills y (T, B, D * P) and the final state. With `keep` it gives what `backward` reads, with copies of x
    and y where these do not stay as they are.

    x (T, B, I) has any strides, but its inputs side by side with `keep`; y has its units side by side, and is zero past
    `lengths`; state arrays (D, B, P) and (D, B, H) are contiguous, the initial ones None for zeros; lengths (B,) are int64.
    """
    saved = Saved(x, y, x_stays, y_stays) if keep else None
    if format_of(layer.spec).convert and x.strides[2] != x.itemsize:
        x = np.ascontiguousarray(x)
    steps, batch, _ = x.shape
    if batch == 0:
        return saved
    directions, order = layer.directions, _Order(lengths)
    threads = current_team.team.offers(get_num_threads())
    for direction in directions:
        direction.forward(threads)  # packed by all threads; else who first needs them packs alone
    key = (steps, batch, threads, keep)
    program = layer.programs.forward.take(key) if lengths is None else None
    if program is None:
        program = ForwardProgram(directions, steps, batch, plan(layer, steps, batch, threads, order.lengths), save=keep)
    else:
        program.use(directions)
    records = program.records
    for d in range(len(directions)):
        at = d * _row_bytes(layer.spec)
        records.bind(d, "x", x)
        records.bind(d, "y", saved.y if saved else y, at)
        for name, arrays in (("h_0", state), ("h_n", final)):
            records.bind_state(d, name, arrays)
        records.set(d, x_i=x.strides[2], **order.fields)
        if saved and program.saves:
            # the first direction copies x for both
            records.bind(d, "x_copy", None if saved.x is x or d else saved.x)
            records.bind(d, "y_copy", None if saved.y is y else y, at)
            saved.directions.append(program.saves.lease())
            records.set(d, **saved.directions[d].fields)
    records.run()
    if lengths is None:
        layer.programs.forward.give(key, program)
    return saved


@dataclass(frozen=True)
class LayerGradients:
    x: Array  # (T, B, I)
    parameters: tuple[dict[str, Array], ...]  # a direction each


def backward(
    layer: Layer,
    saved: Saved,
    state: Sequence[Array],
    lengths: Array | None,
    dy: Array | None,
    dfinal: Sequence[Array | None],
    dstate: Sequence[Array],
) -> LayerGradients:
    """Gives the gradients of a call of `forward` with keep=True from an initial state, and fills dstate, the initial state's.

    dy (T, B, D * P) has its units side by side; dfinal, of the final state, is like the state, contiguous; None for zeros.
    """
    x, y = saved.x, saved.y
    steps, batch, _ = x.shape
    spec, directions = layer.spec, layer.directions
    if batch == 0 or steps == 0:
        return _gradients_without_steps(layer, x, dfinal, dstate)
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
            records.bind(d, name, array, d * _row_bytes(spec))
        for name, arrays in (("h_0", state), ("dh_n", dfinal), ("dh_0", dstate)):
            records.bind_state(d, name, arrays)
        records.set(d, **order.fields, **saved.directions[d].fields, **one.fields())
    program.run(ragged=lengths is not None)
    if lengths is None:
        layer.programs.backward.give(key, program)
    dx = found[0].x
    with np.errstate(all="ignore"):  # gradients may be infinite
        for other in found[1:]:
            dx += other.x
    return LayerGradients(dx, tuple(one.parameters() for one in found))


def _gradients_without_steps(
    layer: Layer, x: Array, dfinal: Sequence[Array | None], dstate: Sequence[Array]
) -> LayerGradients:
    """The state's gradient passes through, and all else is zero."""
    for first, last in zip(dstate, dfinal, strict=True):
        first[...] = 0 if last is None else last
    parameters = tuple(
        {name: np.zeros_like(array) for name, array in direction.parameters.items()} for direction in layer.directions
    )
    return LayerGradients(np.zeros_like(x), parameters)
