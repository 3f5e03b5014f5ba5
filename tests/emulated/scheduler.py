"""Runs a launch: all threads of the grid at once, as groups that stand at the same basic block.

The group that is furthest behind goes first, so that threads come together again after a branch; one that spins gives way
to others from time to time. Values of registers are arrays over the threads, (1,) where all threads hold the same.
"""

from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .copies import Copies
from .counters import Counters
from .errors import PTXError
from .memory import GlobalMemory, Region
from .access import Place
from .program import SPECIAL, Block, Op, Program
from .races import Order, Tracker
from .threads import Group

PATIENCE = 64  # blocks that a group may run in a row at one place while others are ready
DONE = -1
UNDEFINED = np.zeros(1, np.uint64)  # a register that nothing was written to
Shape = tuple[int, int, int]


class Layout(NamedTuple):
    """Of the threads of a grid: the same for all launches of its shape."""

    ids: Any
    block: Any
    warp: Any
    lane: Any
    lanes_of_warp: Any  # (warps,) bits of the lanes that exist
    special: dict[str, Any]


@lru_cache(256)
def layout(grid: Shape, block: Shape) -> Layout:
    threads, blocks = int(np.prod(block)), int(np.prod(grid))
    ids = np.arange(threads * blocks)
    within, number = ids % threads, ids // threads
    warps = -(-threads // 32)
    lane = within % 32
    last = np.tile(np.minimum(32, threads - 32 * np.arange(warps)), blocks)
    special = {"%laneid": lane, "%warpid": within // 32}
    for name, (x, y, z), count in (("tid", block, within), ("ctaid", grid, number)):
        split = (count % x, count // x % y, count // (x * y))
        for axis, size, value in zip("xyz", (x, y, z), split, strict=True):
            special[f"%{name}.{axis}"] = value if size > 1 else np.zeros(1, np.int64)
            special[f"%n{name}.{axis}"] = np.array([size])
    one = np.int64(1) << lane
    special |= {"%lanemask_eq": one, "%lanemask_lt": one - 1, "%lanemask_le": 2 * one - 1}
    special |= {"%lanemask_gt": (1 << 32) - 2 * one, "%lanemask_ge": (1 << 32) - one}
    narrow = {name: value.astype(np.uint32) for name, value in special.items()}
    return Layout(ids, number, number * warps + within // 32, lane, (np.int64(1) << last) - 1, narrow)


class Launch:
    """One execution of a program over a grid."""

    def __init__(
        self, program: Program, grid: Shape, block: Shape, shared: int, memory: GlobalMemory, random: Any, *, noise: bool = True,
        check_races: bool = True, detailed: bool = False,
    ) -> None:  # fmt: skip
        self.program, self.memory, self.random, self.noise, self.check_races = program, memory, random, noise, check_races
        threads, self.block_count = int(np.prod(block)), int(np.prod(grid))
        if program.entry.max_threads is not None and threads > program.entry.max_threads:
            raise PTXError(f"{threads} threads a block, compiled for at most {program.entry.max_threads}")
        self.layout = layout(grid, block)
        self.threads_per_block, self.thread_count = threads, len(self.layout.ids)
        self.block_of, self.warp_of, self.lane_of = self.layout.block, self.layout.warp, self.layout.lane
        self.lanes_of_warp, self.warp_count = self.layout.lanes_of_warp, len(self.layout.lanes_of_warp)
        self.order = Order(self.block_count, self.warp_count // self.block_count)
        self.copies, self.counters = Copies(self.thread_count), Counters(detailed)
        self.warnings: Counter[str] = Counter()
        self._places: dict[int, Place] = {}
        self._make_shared(shared)
        self._runs = [0] * len(program.blocks)
        self._now: Op | None = None

    def _make_shared(self, dynamic: int) -> None:
        program = self.program
        self.shared_bytes = program.dynamic_start + dynamic if dynamic else program.static_shared
        self.shared_stride = -(-max(self.shared_bytes, 1) // 128) * 128
        size, granule = self.shared_stride * self.block_count, program.shared_granule
        region = Region(np.full(size, 0xFF, np.uint8), 0, size, granule, False, "of the block")
        self.shared = Place(region, Tracker(size // granule, granule, private=True), "shared")

    def place(self, region: Region) -> Place:
        found = self._places.get(region.base)
        if found is None:
            tracker = Tracker(len(region.flags), region.granule, private=False)
            found = self._places[region.base] = Place(region, tracker, "global")
        return found

    def name_of(self, thread: int) -> str:
        return f"thread {thread % self.threads_per_block} of block {thread // self.threads_per_block}"

    def warn(self, text: str) -> None:
        self.warnings[f"{text}: {self._now.text if self._now else ''}"] += 1

    def run(self, arguments: list[Any]) -> None:
        """arguments: (1,) arrays, one a parameter of the kernel."""
        program = self.program
        if len(arguments) != len(program.parameters):
            raise PTXError(f"{len(program.parameters)} arguments expected, {len(arguments)} given")
        self.registers: list[Any] = [UNDEFINED] * len(program.slots)
        for name in SPECIAL:
            self.registers[program.slots[name]] = self.layout.special.get(name, UNDEFINED)
        self.registers[program.slots["%dynamic_smem_size"]] = np.array([self.shared_bytes - program.dynamic_start], np.uint32)
        for slot, value in program.constants.items():
            self.registers[slot] = value
        for (slot, dtype), value in zip(program.parameters, arguments, strict=True):
            self.registers[slot] = value if value.dtype == dtype else value.view(dtype)
        with np.errstate(all="ignore"):
            self._run_blocks()
        self._finish()

    def _finish(self) -> None:
        self._now = None
        if self.copies.unfinished:
            self.warn(f"{self.copies.unfinished} cp.async copies that nobody waited for")
        for place in self._places.values():
            if not place.region.complete:
                place.region.settle()
        for block, runs in zip(self.program.blocks, self._runs, strict=True):
            if runs:
                for name in block.opcodes:
                    self.counters.opcodes[name] += runs

    def _run_blocks(self) -> None:
        everyone = Group(self, self.layout.ids)
        self.ready: dict[int, Group] = {0: everyone}
        self.waiting: dict[tuple[str, int], Any] = {}  # (barrier or grid, next block) -> ids
        self.waiting_count = np.zeros(self.block_count, np.int64)
        self.exited = np.zeros(self.block_count, np.int64)
        last, streak = DONE, 0
        while self.ready or self._release():
            at = min(self.ready)
            streak = streak + 1 if at == last else 0
            last = at
            if streak > PATIENCE and len(self.ready) > 1:
                at, streak = sorted(self.ready)[self.random.integers(1, len(self.ready))], 0
            group = self.ready.pop(at)
            block = self.program.blocks[at]
            self._runs[at] += group.n
            values = self._execute(block, group)
            self._leave(block, group, values)

    def _execute(self, block: Block, group: Group) -> Any:
        """Runs the instructions; gives the values that they leave behind."""
        registers = self.registers
        if group.n == self.thread_count:
            execute(block.ops, registers, group, self)
            return registers
        values: dict[int, Any] = {}
        for slot in block.inputs:
            value = registers[slot]
            values[slot] = value[group.ids] if value.size > 1 else value
        execute(block.ops, values, group, self)
        for slot in block.outputs:
            if slot in values:
                registers[slot] = scattered(registers[slot], values[slot], group.ids, self.thread_count)
        return values

    def _leave(self, block: Block, group: Group, values: Any) -> None:
        kind, target, guard, text = block.control
        following = block.number + 1
        if kind == "next":
            self._arrive(target, group)
            return
        if kind == "barrier":
            self._wait("barrier", target, group.ids)
            return
        taken = None
        if guard is not None:
            taken = np.broadcast_to(values[guard[0]], (group.n,)) ^ guard[1]
            if taken.all():
                taken = None
            elif not taken.any():
                self._arrive(following, group)
                return
        staying, going = (None, group) if taken is None else (group.subset(~taken), group.subset(taken))
        if kind == "jump":
            self._arrive(target, going)
        elif kind == "exit":
            np.add.at(self.exited, going.block, 1)
        elif kind == "grid":
            self._wait("grid", target, going.ids)
        else:
            raise PTXError(f"{text} executed by {self.name_of(int(going.ids[0]))}")
        if staying is not None:
            self._arrive(following, staying)

    def _arrive(self, at: int, group: Group) -> None:
        present = self.ready.get(at)
        self.ready[at] = group if present is None else Group(self, np.sort(np.concatenate([present.ids, group.ids])))

    def _wait(self, kind: str, following: int, ids: Any) -> None:
        if kind == "barrier" and len(ids) == self.thread_count:  # all at once: nothing to remember
            self.order.block_barrier(slice(None))
            self._arrive(following, Group(self, ids))
            return
        before = self.waiting.get((kind, following))
        self.waiting[kind, following] = ids if before is None else np.sort(np.concatenate([before, ids]))
        np.add.at(self.waiting_count, self.block_of[ids], 1)
        full = self.waiting_count == self.threads_per_block
        if full.any():
            self._release_blocks(full)

    def _release_blocks(self, full: Any) -> None:
        """Blocks all of whose living threads wait, at barriers of their own."""
        at_grid = np.zeros(self.block_count, bool)
        for (kind, _), ids in self.waiting.items():
            if kind == "grid":
                at_grid[self.block_of[ids]] = True
        full = full & ~at_grid
        if not full.any():
            return
        places = np.zeros(self.block_count, np.int64)
        for (kind, following), ids in list(self.waiting.items()):
            go = full[self.block_of[ids]]
            if kind == "grid" or not go.any():
                continue
            self._arrive(following, Group(self, ids[go]))
            places[np.unique(self.block_of[ids[go]])] += 1
            del self.waiting[kind, following]
            if not go.all():
                self.waiting[kind, following] = ids[~go]
        if (places > 1).any():
            self._now = None
            self.warn("divergent barrier: threads of one block wait at different ones")
        self.waiting_count[full] = 0
        self.order.block_barrier(full)

    def _release(self) -> bool:
        """Nobody can run: barriers that threads have left the kernel without reaching, the grid's, the end, or a deadlock."""
        if not self.waiting:
            return False
        self._now = None
        if all(kind == "grid" for kind, _ in self.waiting):
            if int(self.waiting_count.sum()) < self.thread_count:
                raise PTXError("a grid barrier that not all threads reach: a GPU would hang")
            ready = np.sort(np.concatenate(list(self.waiting.values())))
            if len(self.waiting) > 1:
                self.warn("divergent grid barrier")
            for (_, following), ids in self.waiting.items():
                self._arrive(following, Group(self, ids))
            assert len(ready) == self.thread_count
            self.waiting.clear()
            self.waiting_count[:] = 0
            self.order.grid_barrier()
            return True
        left = (self.waiting_count > 0) & (self.waiting_count + self.exited == self.threads_per_block)
        if left.any():
            self.warn("a barrier that some threads of the block left the kernel without reaching")
            before = len(self.ready)
            self._release_blocks(left)
            if len(self.ready) > before:
                return True
        raise PTXError("deadlock: a barrier that not all threads reach")


def as_type(value: Any, dtype: Any) -> Any:
    """A register's bits as an operand of an instruction; the low ones if the operand is narrower."""
    if value.dtype is dtype:
        return value
    if value.dtype.itemsize == dtype.itemsize:
        return value.view(dtype)
    if value.dtype.itemsize < dtype.itemsize:
        raise PTXError(f"a register of {value.dtype} read as {dtype}")
    return value.view(f"u{value.dtype.itemsize}").astype(f"u{dtype.itemsize}").view(dtype)


def execute(ops: list[Op], values: Any, group: Group, launch: Launch) -> None:
    for op in ops:
        launch._now = op
        if op.guard is not None:
            guarded(op, values, group)
            continue
        arguments = [v if (v := values[slot]).dtype is dtype else as_type(v, dtype) for slot, dtype in op.sources]
        result = op.function(group, *arguments) if op.group else op.function(*arguments)
        put(op, result, values)


def put(op: Op, result: Any, values: Any) -> None:
    destinations = op.destinations
    if len(destinations) == 1:
        slot, widen = destinations[0]
        if type(result) is tuple:
            result = result[0]
        values[slot] = result if widen is None else widen(result)
    else:
        for (slot, widen), r in zip(destinations, result or (), strict=True):
            values[slot] = r if widen is None else widen(r)


def guarded(op: Op, values: Any, group: Group) -> None:
    """By the threads whose guard holds."""
    assert op.guard is not None
    acts = np.broadcast_to(values[op.guard[0]], (group.n,)) ^ op.guard[1]
    if not acts.any():
        return
    positions = np.flatnonzero(acts)
    some = group if len(positions) == group.n else group.subset(positions)
    sources = [as_type(values[slot], dtype) for slot, dtype in op.sources]
    arguments = [s[positions] if s.size > 1 else s for s in sources]
    result = op.function(some, *arguments) if op.group else op.function(*arguments)
    new: dict[int, Any] = {}
    put(op, result, new)
    for slot, value in new.items():
        values[slot] = scattered(values[slot], value, positions, group.n)


def scattered(before: Any, value: Any, positions: Any, n: int) -> Any:
    """(n,) with `value` at `positions`: registers share their arrays, so none is written in place."""
    if before is UNDEFINED:
        result = np.zeros(n, value.dtype)
    else:
        if before.dtype != value.dtype:
            before = before.view(value.dtype)
        result = before.copy() if before.size == n else np.broadcast_to(before, (n,)).copy()
    result[positions] = value
    return result
