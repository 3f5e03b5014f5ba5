"""The forward pass of one layer, made ready: records and scratch memory.

A program depends on a layer's weights, on T, B and the number of threads, not on the arrays of one call: those are bound to
it, so that it can be kept and run again. Whoever takes one from the pool has it alone.
"""

from collections.abc import Sequence
from typing import Any

from ..passes.forward import ROW_ENTRY, copy_steps, forward
from ..threads.partition import Part, vectors_per_panel
from .blocking import ForwardBlocking, ForwardPlan
from .command import PHASE_KERNELS, Records
from .kernels import variant_of
from .own import OwnJob
from .packer import Packed
from .saved import SavedBuffers
from .weights import Weights, tail_vectors_of, wide_vectors


class ForwardProgram:
    """The records of one layer's forward pass, all its directions."""

    def __init__(
        self,
        weights: Sequence[Weights],
        steps: int,
        batch: int,
        plan: ForwardPlan,
        *,
        keep: bool = False,
        copies: bool = False,
    ) -> None:
        """keep: leaves what the backward pass reads, in memory from `keeper`. copies: threads may have copies of W_h."""
        self.plan, schedule = plan, plan.schedule
        self._weights: Sequence[Weights] = ()
        spec = weights[0].spec
        self.records = records = Records(spec, len(weights), schedule.parts, schedule.threads)
        for d, direction in enumerate(weights):
            records.sizes(d, direction.spec, steps, batch)
            records.set(d, tail=tail_vectors_of(spec), wide=wide_vectors(spec))
        self._slots: dict[int, tuple[int, int]] = {}  # by direction, those of n apart
        for share, part, blocking in zip(records.shares, schedule.parts, plan.blockings, strict=True):
            share["kernel"] = records.address_of(forward)
            self._allocate(share, part, blocking)
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
        records.tiles(prefetch=any(blocking.prefetch for blocking in plan.blockings))
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
        for share, part in zip(records.shares, self.plan.schedule.parts, strict=True):
            d = part.direction
            if self.plan.schedule.splits[d] == "rows":
                self._own.append((d, OwnJob(records, share, part, planes, copied[d] if copied else None)))
            elif part.rank == 0:
                records.set(d, **{name: records.allocate(count * batch * records.row) for name, count in planes.items()})

    def _allocate(self, share: Any, part: Part, blocking: ForwardBlocking) -> None:
        """Gives a share its scratch memory: slots for a chunk of steps, rows of x, addresses of rows of y."""
        records, two_products = self.records, self.records.spec.cell == "gru_before"
        records.panels(share, vectors_per_panel(records.spec))
        records.blocking(share, part, blocking, blocking.copy_groups)
        share["capacity"], share["fused"], share["row_major"] = blocking.chunk, blocking.fused, blocking.row_major
        share["slot_row"], share["slot_panel"], share["slot_group"] = (
            blocking.slot_row,
            blocking.slot_panel,
            blocking.slot_group,
        )
        if blocking.own_slots or part.direction not in self._slots:
            slots = blocking.slots // records.item
            self._slots[part.direction] = records.allocate(slots), records.allocate(slots // 2) if two_products else 0
        share["slots"], share["slots_n"] = share["slots_base"], share["slots_n_base"] = self._slots[part.direction]
        share["gathered_row"] = blocking.x_row
        share["gathered"] = records.allocate(blocking.chunk * blocking.x_row // records.item)
        share["row_table"] = records.allocate(blocking.rows * ROW_ENTRY // records.item)
