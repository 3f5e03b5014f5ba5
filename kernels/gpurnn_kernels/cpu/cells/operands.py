"""Operands of the cell equations, by name.

`Kernels` makes the pointwise part of a step out of a plain function: `def lstm(slot, c, h_next, y, saved=None): ...`. A
parameter's name says which vectors it is, and OPERANDS how they are read and written. An operand that is absent in a form is
None. Behind an operand stand one or more *words*, most of them byte addresses. WORDS makes each word by a function. The
function's own parameters name what the word is made of: the records `job` and `share`, where the equations stand, or a
constant of the cell.

    job, share        the records of `codegen/descriptors.py`
    row, index        a row of `order`; the same row, counted from the first one of the step
    s, block          the step; the vector of units
    slot              the row's slot (forward)
    plane             where the row's gates' gradients of this step stand (backward)

A name that a pass lacks is None there: a word that asks for it does not compile. Operands of one kernel do not overlap, except
that equal words are one operand. An operand is loaded before it is stored.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..codegen.bundle import emitted, words_maker
from ..codegen.descriptors import ROW_ENTRY, V1, V3
from ..codegen.inline import inlined
from ..codegen.vector import Vector, Vectors
from ..passes.forward import batch_row, saved_row, time_of
from ..products.product import slot_at

WHERE = ("job", "share", "row", "index", "s", "slot", "plane", "block")


@inlined
def h_before(job, row, s):
    """Gives the address of the h from which a row's step s started: a user's row."""
    if s == 0:
        return job.h_0 + batch_row(job, row) * job.h_b
    return job.y + time_of(job, row, s - 1) * job.y_t + batch_row(job, row) * job.y_b


@inlined
def c_before(job, row, s):
    """Gives the address of the c from which a row's step s started: a padded row."""
    return job.c_start + row * job.row if s == 0 else job.saved_c + saved_row(job, row, s - 1) * job.unit_row


WORDS: dict[str, Any] = {
    "unit": lambda block: block * V1,
    "tail": lambda job, block: job.H - block * job.lanes,  # units from this vector on
    # forward: pre-activated gates, vector after vector, as the tiles leave them
    "slot": lambda share, block, slot: slot_at(share, block, slot),
    # rows of units; c is changed in place; rh is what a later product reads, m what W_p projects
    "h": lambda job, share, row, s, block: share.h + (s & 1) * share.h_plane + row * job.row + block * V1,
    "h_next": lambda job, share, row, s, block: share.h + (~s & 1) * share.h_plane + row * job.row + block * V1,
    "c": lambda job, share, row, block: share.c + row * job.row + block * V1,
    "rh": lambda job, share, row, block: share.rh + row * job.row + block * V1,
    "m": lambda job, share, row, block: share.m + row * job.row + block * V1,
    # the row table's entry; bytes along `saved`
    "entry": lambda share, index: share.row_table + index * ROW_ENTRY,
    "saved_unit": lambda block, saved_gates: block * (saved_gates * V1),
    # layers with options: a vector of the clip; p_f p_i p_o
    "limit": lambda job: job.limit,
    "peephole": lambda job, block: job.peephole + block * V3,
    # backward: what the forward pass has saved of the step; the state that it started from
    "gates": lambda job, row, s, block, saved_gates: (
        job.saved + saved_row(job, row, s) * job.saved_row + block * (saved_gates * V1)
    ),
    "h_prev": lambda job, row, s, block: h_before(job, row, s) + block * V1,
    "c_prev": lambda job, row, s, block: c_before(job, row, s) + block * V1,
    "c_saved": lambda job, row, s, block: job.saved_c + saved_row(job, row, s) * job.unit_row + block * V1,
    # gradients of rows of units, from step to step
    "dh": lambda job, row, block: job.dh + row * job.row + block * V1,
    "dc": lambda job, row, block: job.dc + row * job.row + block * V1,
    "drh": lambda job, row, block: job.drh + row * job.row + block * V1,
    "dm": lambda job, row, block: job.dm + row * job.row + block * V1,
    # the gates' gradients that the recurrent product reads; that the weight gradients read, and what they read besides
    "d_step": lambda plane, block, num_gates: plane + block * (num_gates * V1),
    "d_gates": lambda job, row, s, block, num_gates: (
        job.d_gates + saved_row(job, row, s) * job.d_row + block * (num_gates * V1)
    ),
    "dq": lambda job, row, s, block: job.dq + saved_row(job, row, s) * job.unit_row + block * V1,
    "fed": lambda job, row, s, block: job.fed + saved_row(job, row, s) * job.unit_row + block * V1,
}


def _compiled(words: Mapping[str, Any]) -> dict[str, Any]:
    return {name: made if hasattr(made, "py_func") else inlined(made) for name, made in words.items()}


_TABLE = _compiled(WORDS)


class Padded:
    """Vectors side by side in padded memory, aligned to an element at least: whole vectors are read and written."""

    def __init__(self, v: Vectors, *words: Any) -> None:
        self.v, self.at, self.words = v, words[0], words

    def load(self, index: int = 0) -> Vector:
        return self.v.load(self.at, index)

    def loads(self, count: int) -> Any:
        return [self.load(index) for index in range(count)]

    def store(self, *values: Vector, start: int = 0) -> None:
        for index, value in enumerate(values, start):
            self.v.store(self.at, value, index)

    def clear(self) -> None:
        self.store(self.v.zero())


class UserVector(Padded):
    """A vector of a user's array: nothing is read past its `tail`."""

    def load(self, index: int = 0) -> Vector:
        return self.v.load_tail(*self.words)


class Entry(Padded):
    """A vector that a row writes to, by an address of its entry in the row table."""

    word: int  # of the entry

    @property
    def at_row(self) -> Any:
        return self.v.pointer(self.words[0], self.word, self.words[1])


class Output(Entry):
    """A vector of y, a user's array: nothing is written past its `tail`."""

    word = 0

    def store(self, *values: Vector, start: int = 0) -> None:
        self.v.store_tail(self.at_row, values[0], self.words[2])


class Saved(Entry):
    """Vectors that the backward pass reads, much later."""

    word = 1

    def found(self) -> Padded:
        """Gives the same vectors, with their address made once."""
        return Padded(self.v, self.at_row)

    def store(self, *values: Vector, start: int = 0, streaming: bool = False) -> None:
        """Stores vectors from the `start`-th one on. streaming: they go past the caches, and are aligned to their size."""
        at, store = self.at_row, self.v.store_streaming if streaming else self.v.store
        for index, value in enumerate(values, start):
            store(at, value, index)


class SavedC(Saved):
    word = 2


class SavedM(Saved):
    word = 3


# operands that are not one vector or more of padded memory at the address of their own name
OPERANDS: dict[str, tuple[type[Padded], tuple[str, ...]]] = {
    "y": (Output, ("entry", "unit", "tail")),
    "saved": (Saved, ("entry", "saved_unit")),
    "saved_c": (SavedC, ("entry", "unit")),
    "saved_m": (SavedM, ("entry", "unit")),
    "h_prev": (UserVector, ("h_prev", "tail")),
}


class Form(NamedTuple):
    """A kernel with some of the operands that may be absent."""

    run: Any  # run(zero, words), or run(zero, where they stand) for a bundle: see bundle.py
    words: Any  # words(*WHERE)


class Kernel:
    """The pointwise part of a step, in as many forms as it has sets of operands that may be absent."""

    def __init__(self, body: Callable[..., None], table: Mapping[str, Any], constants: Mapping[str, int]) -> None:
        self._body, self._table, self._constants = body, table, constants
        self._parameters = inspect.signature(body).parameters

    def form(self, *present: str, **flags: bool) -> Form:
        """Gives the form that has the operands `present` of those that may be absent, and these flags."""
        unknown = set(present) - set(self._parameters)
        if unknown:
            raise TypeError(f"{self._body.__name__} has no operand {', '.join(sorted(unknown))}")
        names = [name for name, one in self._parameters.items() if name in present or one.default is one.empty]
        kinds = {name: OPERANDS.get(name, (Padded, (name,))) for name in names}
        words = tuple(dict.fromkeys(word for _, its in kinds.values() for word in its))

        def emit(v: Vectors, *values: Any) -> None:
            given = dict(zip(words, values, strict=True))
            made = {name: kind(v, *(given[word] for word in its)) for name, (kind, its) in kinds.items()}
            self._body(**made, **flags)

        name = "_".join([self._body.__name__, *present, *flags])
        makers = [self._table[word] for word in words]
        return Form(emitted(name, len(words), emit, self._body.__doc__), words_maker(makers, WHERE, self._constants))


class Kernels:
    """Makes a cell's kernels. `words` are the cell's own words, beside or instead of those of the table; `constants` are
    the numbers that words ask for."""

    def __init__(self, words: Mapping[str, Any] | None = None, **constants: int) -> None:
        self._table = _TABLE | _compiled(words or {})
        self._constants = constants

    def __call__(self, body: Callable[..., None]) -> Kernel:
        return Kernel(body, self._table, self._constants)
