"""Runs a launch: all threads of the grid at once, as groups that stand at the same basic block.

The group that is furthest behind goes first, so that threads come together again after a branch; one that spins gives way
to others from time to time. Values of registers are arrays over the threads, (1,) where all threads hold the same.
"""

from collections import Counter
from typing import Any

import numpy as np

from .access import Place
from .copies import Copies
from .counters import Counters
from .errors import PTXError
from .execute import UNDEFINED, execute, scattered
from .layout import Shape, layout
from .memory import GlobalMemory, Region
from .program import SPECIAL, Block, Op, Program
from .races import Order, Tracker
from .threads import Group

PATIENCE = 64  # blocks that a group may run in a row at one place while others are ready
NOWHERE = -1


class Launch:
    """One execution of a program over a grid. shared: dynamic, bytes a block."""

    def __init__(
        self,
        program: Program,
        grid: Shape,
        block: Shape,
        shared: int,
        memory: GlobalMemory,
        random: Any,
        *,
        noise: bool = True,
        check_races: bool = True,
        detailed: bool = False,
    ) -> None:
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
        self.at: Op | None = None  # being executed

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
        self.warnings[f"{text}: {self.at.text if self.at else ''}"] += 1

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
        self.at = None
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
        last, streak = NOWHERE, 0
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
        if group.everyone:
            execute(block.ops, registers, group)
            return registers
        values: dict[int, Any] = {}
        for slot in block.inputs:
            value = registers[slot]
            values[slot] = value[group.ids] if value.size > 1 else value
        execute(block.ops, values, group)
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
            self.at = None
            self.warn("divergent barrier: threads of one block wait at different ones")
        self.waiting_count[full] = 0
        self.order.block_barrier(full)

    def _release(self) -> bool:
        """Nobody can run: barriers that threads have left the kernel without reaching, the grid's, the end, or a deadlock."""
        if not self.waiting:
            return False
        self.at = None
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
