"""A stack of layers made ready for one shape of input: plain calls and streamed steps run it.

A call changes a few addresses alone: those of x, y, the final state and, between stacked layers, a scratch array. A table says
which job fields they go to, so that a call is one entry into machine code, without Python work per layer.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from ...aside import aside
from ...spec import Array
from ..codegen.aligned import address
from ..codegen.compile import entry
from ..codegen.descriptors import job_dtype
from ..codegen.inline import called
from ..codegen.intrinsics import load_word, store_word
from ..codegen.target import target
from ..threads.commands import INTERRUPTED, run_command
from ..threads.count import get_num_threads
from ..threads.interrupts import INTERRUPTS
from ..threads.partition import worth_sharing
from ..threads.team import Team, current_team
from .blocking import SPARE_CALLS
from .command import Records
from .forward import ForwardProgram
from .layer import Layer, plan

X, Y, BETWEEN, H, C = range(5)  # the arrays of a call
_TEAM, _HEAD = 4, 7  # the word of a description for a team's memory; words before those of its layers
OVERLAP = -1  # a step's result, without a step, where out lies over x: it would write what it still has to read
_BIND = 24  # bytes of a row of the table: address of the field, which array, bytes to add


@called
def run_stack(description, x, y, between, h, c):
    """Binds the addresses of a call's arrays and runs layer after layer, with the team if the description names one; -> like
    `judge`, what the team met."""
    table = load_word(description)
    for i in range(load_word(description + 8)):
        row = table + _BIND * i
        which = load_word(row + 8)
        base = x
        if which == Y:
            base = y
        elif which == BETWEEN:
            base = between
        elif which == H:
            base = h
        elif which == C:
            base = c
        store_word(load_word(row), base + load_word(row + 16))
    team, size, interrupts = load_word(description + 32), load_word(description + 40), load_word(description + 48)
    found = 0
    for layer in range(load_word(description + 16)):
        if not found & INTERRUPTED:
            words = description + 8 * (_HEAD + 3 * layer)
            found |= run_command(team, size, interrupts, load_word(words), load_word(words + 8), load_word(words + 16))
    return found


@called
def run_step(description, x, x_bytes, y, y_bytes):
    """Runs a step like `run_stack`, or gives OVERLAP."""
    if x < y + y_bytes and y < x + x_bytes:
        return OVERLAP
    return run_stack(description, x, y, load_word(description + 24), 0, 0)


def call(description, x, y, between, h, c):
    """The function that Python calls for a plain call."""
    return run_stack(description, x.ctypes.data, y.ctypes.data, between.ctypes.data, h.ctypes.data, c.ctypes.data)


def step(description, x, y):
    """The function that Python calls for a step of a stream."""
    return run_step(description, x.ctypes.data, x.nbytes, y.ctypes.data, y.nbytes)


_SIGNATURES = {call: f"int64(int64, {', '.join(['{0}[:, :, ::1]'] * 5)})", step: "int64(int64, {0}[:, ::1], {0}[:, ::1])"}


@cache
def entry_of(function: Callable[..., int], element: str) -> Any:
    """`call` or `step` over "float32" or "float64" arrays, compiled at its first use."""
    return aside(partial(entry, _SIGNATURES[function].format(element), function))


class StackCall:
    """The records of a stack of layers, and the table that binds a call's arrays to them. For one caller at a time."""

    def __init__(self, layers: Sequence[Layer], steps: int, batch: int, strides: Sequence[int], threads: int) -> None:
        """strides: bytes from step to step and from row to row, of x, then of y (and of what stacked layers hand on)."""
        x_t, x_b, y_t, y_b = strides
        self.records: list[Records] = []
        self._binds: list[tuple[int, int, int]] = []
        self.threads = threads
        self._team: Team | None = None
        programs = [
            ForwardProgram(one.directions, steps, batch, plan(one, steps, batch, threads), copies=True) for one in layers
        ]
        self.on_team = not all(program.records.alone for program in programs)
        for index, program in enumerate(programs):
            records = program.records
            self.records.append(records)
            hands_on = [Y, BETWEEN]  # in turn, so that the last layer writes y
            source = X if index == 0 else hands_on[(len(layers) - index) % 2]
            result = hands_on[(len(layers) - 1 - index) % 2]
            for d in range(len(records.jobs)):
                records.set(d, x_t=y_t, x_b=y_b, x_i=records.item, y_t=y_t, y_b=y_b)
                if index == 0:
                    records.set(d, x_t=x_t, x_b=x_b)
                self.bind(index, d, "x", source, 0)
                self.bind(index, d, "y", result, d * records.spec.output_size * records.item)

    def bind(self, layer: int, direction: int, field: str, array: int, offset: int) -> None:
        """Has a job's field hold an array's address plus `offset` bytes."""
        records = self.records[layer]
        at = job_dtype(records.element).fields[field][1]  # type: ignore[index]
        self._binds.append((records.jobs.ctypes.data + direction * records.jobs.itemsize + at, array, offset))

    def bind_final_state(self) -> None:
        """Binds the final state to H (L * D, B, P) and C (L * D, B, H)."""
        for index, records in enumerate(self.records):
            spec = records.spec
            for d in range(len(records.jobs)):
                row = (index * len(records.jobs) + d) * int(records.jobs[0]["B"]) * records.item
                self.bind(index, d, "h_n", H, row * spec.output_size)
                self.bind(index, d, "c_n", C, row * spec.hidden_size)

    def describe(self, between: int = 0) -> None:
        """Fixes the table. `between`: the address of a scratch array of the stack's own, for a caller that brings none."""
        self._table = np.array(self._binds, np.int64)
        words = [self._table.ctypes.data, len(self._table), len(self.records), between, 0, self.threads, INTERRUPTS.address]
        for records in self.records:
            words += [records.shares.ctypes.data, records.starts.ctypes.data, len(records.shares)]
        self._words = np.array(words, np.int64)
        self.description = self._words.ctypes.data  # the address that `run_stack` takes

    @property
    def bytes(self) -> int:
        """Bytes that the records hold."""
        return sum(records.bytes for records in self.records)

    def use(self, team: Team) -> None:
        """Runs with this team from now on, where a call is shared out."""
        if self._team is not team and self.on_team:
            self._team, self._words[_TEAM] = team, team.address


class StackCalls:
    """Stacks made ready for one shape as callers need them, for the calling thread alone or for as many as share a call."""

    def __init__(self, make: Callable[[int], StackCall]) -> None:
        self._make = make
        self._alone: list[StackCall] = []
        self._together: dict[int, list[StackCall]] = {}
        self._shared: dict[int, bool] = {}  # whether a call with so many threads is shared out

    def shared(self, wanted: int) -> StackCall | None:
        """Gives a stack for a caller and its team, if the caller may use so many threads and it is worth it."""
        if wanted > 1 and self._shared.get(wanted, True):
            team = current_team.team
            if team.offers(wanted) > 1:
                spare = self._together.get(wanted)
                stack = spare.pop() if spare else self._make(wanted)
                self._shared[wanted] = stack.on_team
                stack.use(team)
                return stack
        return None

    def alone(self) -> StackCall:
        """Gives a stack for the calling thread alone."""
        return self._alone.pop() if self._alone else self._make(1)

    @property
    def bytes(self) -> int:
        """Bytes that the stacks hold which nobody runs."""
        return sum(stack.bytes for spare in (self._alone, *self._together.values()) for stack in spare)

    def give(self, stack: StackCall) -> None:
        """Keeps a stack for the next caller."""
        if stack.on_team:
            if stack.threads not in self._together:
                self._together = {stack.threads: []}  # other numbers of threads are those of before
            spare = self._together[stack.threads]
        else:
            spare = self._alone
        if len(spare) < SPARE_CALLS:
            spare.append(stack)


class PlainCall:
    """A stack's calls without initial state and lengths, over contiguous arrays of one shape."""

    def __init__(self, layers: Sequence[Layer], steps: int, batch: int, strides: Sequence[int]) -> None:
        def make(threads: int) -> StackCall:
            stack = StackCall(layers, steps, batch, strides, threads)
            stack.bind_final_state()
            stack.describe()
            return stack

        self._calls = StackCalls(make)
        self._call = entry_of(call, layers[0].spec.dtype.name)

    @property
    def bytes(self) -> int:
        """Bytes that the stacks hold which nobody runs."""
        return self._calls.bytes

    def run(self, x: Array, y: Array, between: Array, h: Array, c: Array) -> None:
        """Fills y and the final state, h (L * D, B, P) and c (L * D, B, H). x, y and `between`, scratch between layers, are
        3-D, contiguous, in the layout of the strides."""
        stack = self._calls.shared(get_num_threads()) or self._calls.alone()
        found = self._call(stack.description, x, y, between, h, c)
        if found:
            current_team.team.conclude(found)
        self._calls.give(stack)


class Stepper:
    """A stack's steps over state arrays (L, B, P) and (L, B, H), which they move on in place."""

    def __init__(self, layers: Sequence[Layer], batch: int, state: Sequence[Array], threads: int | None = None) -> None:
        """threads: the number that steps may use; None: as many as calls."""
        spec = layers[0].spec
        self._threads = threads
        if threads is None:
            get_num_threads()  # a bad number in the environment shows here, though small steps never ask
        item = spec.dtype.itemsize
        strides = (0, spec.input_size * item, 0, spec.output_size * item)
        between = np.empty((batch, spec.output_size), spec.dtype)
        self.state = state

        def make(threads: int) -> StackCall:
            stack = StackCall(layers, 1, batch, strides, threads)
            for index, records in enumerate(stack.records):
                for name, array in zip(("h", "c"), state, strict=False):
                    records.set(0, **{f"{name}_0": address(array[index]), f"{name}_n": address(array[index])})
            stack.describe(address(between))  # which `make` holds, not self: a cycle would outlive the stepper
            return stack

        self._calls = StackCalls(make)
        self._run = entry_of(step, spec.dtype.name)
        self._mine = self._calls.alone()
        self._small = not any(worth_sharing(one.spec, batch, 1, target()) for one in layers)

    def step(self, x: Array, out: Array) -> None:
        """Makes out (B, P) of x (B, I), both contiguous. It allocates nothing but a copy of x where out lies over it."""
        stack = None if self._small else self._calls.shared(self._threads or get_num_threads())
        description = (stack or self._mine).description
        found = self._run(description, x, out)
        if found == OVERLAP:
            found = self._run(description, x.copy(), out)
        if found:
            current_team.team.conclude(found)
        if stack:
            self._calls.give(stack)
