"""The forward pass of one layer, made ready: records and scratch memory.

A program depends on a layer's weights, on T, B and the number of threads, not on the arrays of one call: those are bound to
it, so that it can be kept and run again. Whoever takes one from the pool has it alone.
"""

from collections.abc import Sequence
from typing import Any

from ..codegen.bundle import BUNDLE
from ..codegen.descriptors import VECTOR_BYTES
from ..codegen.target import L2_BYTES, LINE
from ..passes.backward import NR_BACK
from ..passes.forward import ROW_ENTRY, copy_steps, forward
from ..threads.partition import Part, Schedule, vectors_per_panel
from .command import PHASE_KERNELS, Records, rows_at_once
from .kernels import variant_of
from .own import OwnJob
from .packer import Packed
from .saved import SavedBuffers
from .weights import Weights, tail_vectors_of, wide_vectors

SLOT_BYTES = 1 << 18  # of pre-activated gates that a chunk of steps may take: about what stays in cache
MOST_SLOT_BYTES = 1 << 22  # that it may take where W_x, read once a chunk, would be read too often
FEW_ROWS = 3  # that have the products of a step made for all panels together
L3_BYTES = 1 << 23  # of packed recurrent weights: more are not counted on to stay in any cache
MANY_ROWS = 16  # that leave time to fetch weights ahead, where all packed ones leave a core's own cache


def slots_at_once(slot: int, inputs: int) -> int:
    """Of a chunk of steps, `slot` bytes each. A slot has W_x's share of its chunk to read, inputs / slots times its own bytes,
    and once slots do not stay in cache, they are read and written from further away."""
    fitting = SLOT_BYTES // slot
    return fitting if fitting >= inputs // 4 else max(fitting, min(inputs, MOST_SLOT_BYTES // slot))


class ForwardProgram:
    """The records of one layer's forward pass, all its directions."""

    def __init__(
        self,
        weights: Sequence[Weights],
        steps: int,
        batch: int,
        schedule: Schedule,
        *,
        keep: bool = False,
        copies: bool = False,
    ) -> None:
        """keep: leaves what the backward pass reads, in memory from `keeper`. copies: threads may have copies of W_h."""
        self.schedule = schedule
        self._weights: Sequence[Weights] = ()
        spec = weights[0].spec
        self.records = records = Records(spec, len(weights), schedule.parts, schedule.threads)
        for d, direction in enumerate(weights):
            records.sizes(d, direction.spec, steps, batch)
            records.set(d, tail=tail_vectors_of(spec), wide=wide_vectors(spec))
        rows = max(part.row_end - part.row_begin for part in schedule.parts)
        self._slots: dict[int, tuple[int, int]] = {}  # by direction, those of n apart
        for share, part in zip(records.shares, schedule.parts, strict=True):
            share["kernel"] = records.address_of(forward)
            self._allocate(share, part, steps)
        packed = [direction.forward() for direction in weights]
        self._own: list[tuple[int, OwnJob]] = []  # by direction
        self._make_planes(batch, packed if copies else None)
        variant = variant_of(spec)
        steps_of = variant.step_keep if keep else variant.step
        kernels = {"project_kernel": variant.project, **dict(zip(PHASE_KERNELS, steps_of[: spec.phases], strict=False))}
        if keep:
            kernels["copy_kernel"] = copy_steps
        records.kernels(kernels)
        self.keeper = SavedBuffers(records, steps * batch) if keep else None
        prefetch = packed[0].bytes > L2_BYTES if rows >= MANY_ROWS else packed[0].arrays["w_h"].nbytes > L3_BYTES
        records.tiles(prefetch=prefetch)
        self.use(weights)

    @property
    def bytes(self) -> int:
        """That are held."""
        return self.records.bytes

    def use(self, weights: Sequence[Weights]) -> None:
        """Runs on these weights from now on: other values of the same shapes."""
        if weights is not self._weights:
            self._weights = weights
            for d, direction in enumerate(weights):
                self.records.set(d, **direction.forward().addresses)
            for d, own in self._own:
                own.use(weights[d].forward())

    def _make_planes(self, batch: int, copied: Sequence[Packed] | None) -> None:
        """Rows of units: those of a direction, or each thread's own. copied: weights of which threads may have copies."""
        records, spec = self.records, self.records.spec
        planes = {"h": 2}
        if spec.cell == "lstm":
            planes["c"] = 1
        if spec.cell == "gru_before":
            planes["rh"] = 1
        if spec.proj_size:
            planes["m"] = 1
        for share, part in zip(records.shares, self.schedule.parts, strict=True):
            d = part.direction
            if self.schedule.splits[d] == "rows":
                self._own.append((d, OwnJob(records, share, part, planes, copied[d] if copied else None)))
            elif part.rank == 0:
                records.set(d, **{name: records.allocate(count * batch * records.row) for name, count in planes.items()})

    def _allocate(self, share: Any, part: Part, steps: int) -> None:
        """A share's scratch memory: slots for a chunk of steps, rows of x, addresses of rows of y."""
        records, spec = self.records, self.records.spec
        rows = part.row_end - part.row_begin
        panels = records.panels(share, vectors_per_panel(spec))
        inputs = -(-spec.input_size // records.lanes) * VECTOR_BYTES
        four = 4 * VECTOR_BYTES
        mine = -(-panels // part.team_size)
        slot = max(mine * vectors_per_panel(spec) * four, inputs)
        cap = rows_at_once(rows, slot)
        capacity = max(cap, min(rows * steps, slots_at_once(slot, spec.input_size) // cap * cap))
        share["row_major"] = row_major = rows <= FEW_ROWS
        share["fused"] = fused = self._projects_its_own(steps, cap, slot, row_major)
        if fused:
            capacity = cap
        at_once = 1 if not row_major else BUNDLE // vectors_per_panel(spec) if fused else max(1, mine)
        share["at_once"], groups = at_once, -(-panels // at_once)
        outputs = -(-records.out_blocks // NR_BACK) if spec.proj_size else 0
        records.phases(share, part, groups, groups if spec.cell == "gru_before" else outputs, min(rows, 2 * part.team_size))
        # a step of two phases leaves its slots from the first one for the second
        one = fused and not row_major and spec.cell != "gru_before"
        if one:
            panels = 1
        share["row_cap"], share["capacity"] = cap, capacity
        by_group = row_major and part.team_size > 1
        of_row = at_once if by_group else panels
        share["slot_row"] = of_row * four + 2 * LINE if row_major else four
        if by_group:
            share["slot_group"] = -(-capacity * (at_once * four + 2 * LINE) // 4096) * 4096 + 2 * LINE
        share["slot_panel"] = four if row_major else 0 if one else capacity * four
        if one or not share["leads"] or part.direction not in self._slots:
            elements = capacity * (panels * four + 2 * LINE) // records.item
            if by_group:
                elements = groups * int(share["slot_group"]) // records.item
            self._slots[part.direction] = (
                records.allocate(elements),
                records.allocate(elements // 2) if spec.cell == "gru_before" else 0,
            )
        share["slots"], share["slots_n"] = share["slots_base"], share["slots_n_base"] = self._slots[part.direction]
        share["slot_0"] = 0
        share["gathered_row"] = inputs
        share["gathered"] = records.allocate(capacity * inputs // records.item)
        share["row_table"] = records.allocate(cap * ROW_ENTRY // records.item)

    def _projects_its_own(self, steps: int, rows: int, slot: int, row_major: bool) -> bool:
        """Whether a step projects its own x: of a stream, to begin with those of both weights that are still in cache; of a
        sequence, where there are rows enough to read W_x for them, and their slots would leave the cache before the step."""
        spec = self.records.spec
        if steps == 1 and spec.gates * spec.hidden_size * spec.output_size * self.records.item <= L3_BYTES:
            return True
        return spec.cell != "gru_before" and not row_major and SLOT_BYTES // slot < 2 * rows and 2 * rows >= spec.input_size
