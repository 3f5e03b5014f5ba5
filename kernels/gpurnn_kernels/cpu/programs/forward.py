"""The forward pass of one layer, made ready: records and scratch memory.

A program depends on a layer's weights, on T, B and the number of threads, not on the arrays of one call: those are bound to
it, so that it can be kept and run again. Whoever takes one from the pool has it alone.
"""

from collections.abc import Sequence
from typing import Any

from ..codegen.bundle import BUNDLE
from ..codegen.descriptors import VECTOR_BYTES
from ..codegen.target import LINE, OWN_CACHE
from ..passes.backward import BACK
from ..passes.forward import ROW_ENTRY, copy_steps, forward
from ..products.layout import Packed
from ..threads.partition import Schedule, Share, vectors_per_panel
from .command import PHASE_KERNELS, Records, rows_at_once
from .kernels import variant_of
from .own import OwnJob
from .saved import Keeper
from .weights import Weights, narrow_of, wide_vectors

SLOT_BYTES = 1 << 18  # of pre-activated gates that a chunk of steps may take: about what stays in cache
MOST_SLOT_BYTES = 1 << 22  # that it may take where W_x, read once a chunk, would be read too often
FEW_ROWS = 3  # that have the products of a step made for all panels together
FAR_BYTES = 1 << 23  # of packed recurrent weights: more are not counted on to stay in any cache
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
        self.records = records = Records(spec, len(weights), schedule.shares, schedule.threads)
        for d, direction in enumerate(weights):
            records.sizes(d, direction.spec, steps, batch)
            records.set(d, narrow=narrow_of(spec), wide=wide_vectors(spec))
        rows = max(share.row_1 - share.row_0 for share in schedule.shares)
        self._slots: dict[int, tuple[int, int]] = {}  # by direction, those of n apart
        for work, share in zip(records.works, schedule.shares, strict=True):
            work["kernel"] = records.address_of(forward)
            self._make_room(work, share, steps)
        packed = [direction.forward() for direction in weights]
        self._own: list[tuple[int, OwnJob]] = []  # by direction
        self._make_planes(batch, packed if copies else None)
        variant = variant_of(spec)
        steps_of = variant.step_keep if keep else variant.step
        kernels = {"project_kernel": variant.project, **dict(zip(PHASE_KERNELS, steps_of[: spec.phases], strict=False))}
        if keep:
            kernels["copy_kernel"] = copy_steps
        records.kernels(kernels)
        self.keeper = Keeper(records, steps * batch) if keep else None
        far = packed[0].bytes > OWN_CACHE if rows >= MANY_ROWS else packed[0].arrays["w_h"].nbytes > FAR_BYTES
        records.tiles(far=far)
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
        for work, share in zip(records.works, self.schedule.shares, strict=True):
            d = share.direction
            if self.schedule.splits[d] == "rows":
                self._own.append((d, OwnJob(records, work, share, planes, copied[d] if copied else None)))
            elif share.member == 0:
                records.set(d, **{name: records.room(count * batch * records.row) for name, count in planes.items()})

    def _make_room(self, work: Any, share: Share, steps: int) -> None:
        """A work's scratch memory: slots for a chunk of steps, rows of x, addresses of rows of y."""
        records, spec = self.records, self.records.spec
        rows = share.row_1 - share.row_0
        panels = records.panels(work, vectors_per_panel(spec))
        inputs = -(-spec.input_size // records.lanes) * VECTOR_BYTES
        four = 4 * VECTOR_BYTES
        mine = -(-panels // share.members)
        slot = max(mine * vectors_per_panel(spec) * four, inputs)
        cap = rows_at_once(rows, slot)
        capacity = max(cap, min(rows * steps, slots_at_once(slot, spec.input_size) // cap * cap))
        work["together"] = together = rows <= FEW_ROWS
        work["fused"] = fused = self._projects_its_own(steps, cap, slot, together)
        if fused:
            capacity = cap
        at_once = 1 if not together else BUNDLE // vectors_per_panel(spec) if fused else max(1, mine)
        work["at_once"], groups = at_once, -(-panels // at_once)
        outputs = -(-records.out_blocks // BACK) if spec.proj_size else 0
        records.phases(work, share, groups, groups if spec.cell == "gru_before" else outputs, min(rows, 2 * share.members))
        # a step of two phases leaves its slots from the first one for the second
        one = fused and not together and spec.cell != "gru_before"
        if one:
            panels = 1
        work["row_cap"], work["capacity"] = cap, capacity
        apart = together and share.members > 1
        of_row = at_once if apart else panels
        work["slot_row"] = of_row * four + 2 * LINE if together else four
        if apart:
            work["apart"] = -(-capacity * (at_once * four + 2 * LINE) // 4096) * 4096 + 2 * LINE
        work["slot_panel"] = four if together else 0 if one else capacity * four
        if one or not work["leads"] or share.direction not in self._slots:
            room = capacity * (panels * four + 2 * LINE) // records.item
            if apart:
                room = groups * int(work["apart"]) // records.item
            self._slots[share.direction] = records.room(room), records.room(room // 2) if spec.cell == "gru_before" else 0
        work["slots"], work["slots_n"] = work["slots_base"], work["slots_n_base"] = self._slots[share.direction]
        work["slot_0"] = 0
        work["gathered_row"] = inputs
        work["gathered"] = records.room(capacity * inputs // records.item)
        work["row_table"] = records.room(cap * ROW_ENTRY // records.item)

    def _projects_its_own(self, steps: int, rows: int, slot: int, together: bool) -> bool:
        """Whether a step projects its own x: of a stream, to begin with those of both weights that are still in cache; of a
        sequence, where there are rows enough to read W_x for them, and their slots would leave the cache before the step."""
        spec = self.records.spec
        if steps == 1 and spec.gates * spec.hidden_size * spec.output_size * self.records.item <= FAR_BYTES:
            return True
        return spec.cell != "gru_before" and not together and SLOT_BYTES // slot < 2 * rows and 2 * rows >= spec.input_size
