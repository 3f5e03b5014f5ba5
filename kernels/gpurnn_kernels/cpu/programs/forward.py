"""The forward pass of one layer, made ready: records and scratch memory.

A program depends on a layer's weights, on T, B and the number of threads, not on the arrays of one call. Those are bound to
it, so that it can be kept and run again. Whoever takes one from the pool has it alone.
"""

from collections.abc import Sequence
from typing import Any

from ...spec import Array, Spec
from ..cells import cell_of, steps_of
from ..codegen.aligned import address, aligned
from ..codegen.descriptors import ROW_ENTRY
from ..passes.forward import copy_steps, forward
from ..products.formats import format_of
from ..threads.partition import Part
from .blocking import PAGE, ForwardBlocking, ForwardPlan
from .command import PHASE_KERNELS, Records
from .saved import SavedBuffers
from .weights import Weights, panel_widths, tail_vectors_of, wide_vectors


class ForwardProgram:
    """The records of one layer's forward pass, all its directions."""

    def __init__(
        self,
        weights: Sequence[Weights],
        steps: int,
        batch: int,
        plan: ForwardPlan,
        *,
        save: bool = False,
        copies: bool = False,
    ) -> None:
        """save: saves what the backward pass reads in memory that `saves` leases. copies: threads may copy W_h."""
        self.plan, schedule = plan, plan.schedule
        self._weights: Sequence[Weights] = ()
        spec = weights[0].spec
        format = format_of(spec)
        self.records = records = Records(spec, len(weights), schedule.parts, schedule.threads)
        for d, direction in enumerate(weights):
            records.sizes(d, direction.spec, steps, batch)
            records.set(d, tail=tail_vectors_of(spec), wide=wide_vectors(spec))
            sizes = {"x": direction.spec.input_size, "h": spec.output_size, "m": spec.hidden_size}
            records.set(d, head=format.head, **{f"{name}_depth": format.depth(size) for name, size in sizes.items()})
        self._slots: dict[int, tuple[int, int]] = {}  # by direction: the slots, and those of n
        self._state: dict[int, dict[str, int]] = {}  # by direction: addresses of its rows
        # the packed weights that shares read by fields of their own, and each share with its direction and its copies
        self._recurrent = [name for name in ("w_h", "w_h_n") if name in weights[0].forward().arrays]
        self._readers: list[tuple[Any, int, dict[str, Array]]] = []
        for share, part, blocking in zip(records.shares, schedule.parts, plan.blockings, strict=True):
            share["kernel"] = records.address_of(forward)
            self._allocate(share, part, blocking)
            self._give_rows(share, part, blocking, batch)
            copied = self._room_for_copies(weights[part.direction]) if copies and blocking.copied else {}
            self._readers.append((share, part.direction, copied))
        self.saves = SavedBuffers(records, steps * batch) if save else None
        its_steps = steps_of(spec)
        step = its_steps.step
        if self.saves:
            step = its_steps.step_streaming if self.saves.streaming else its_steps.step_saved
        kernels = {"project_kernel": its_steps.project, **dict(zip(PHASE_KERNELS, step, strict=False))}
        if save:
            kernels["copy_kernel"] = copy_steps
        if format.convert:
            kernels["convert_kernel"] = format.convert
        records.kernels(kernels)
        records.tiles(panel_widths(spec), prefetch=any(blocking.prefetch for blocking in plan.blockings))
        self.use(weights)

    @property
    def bytes(self) -> int:
        """Bytes that the records hold."""
        return self.records.bytes

    def use(self, weights: Sequence[Weights]) -> None:
        """Runs on these weights from now on, other values of the same shapes."""
        if weights is not self._weights:
            self._weights = weights
            for d, direction in enumerate(weights):
                self.records.set(d, **direction.forward().addresses)
            for share, d, copies in self._readers:
                packed = weights[d].forward()
                for name in self._recurrent:
                    if copies:
                        copies[name][:] = packed.arrays[name]
                    share[name] = address(copies[name]) if copies else packed.addresses[name]

    def _give_rows(self, share: Any, part: Part, blocking: ForwardBlocking, batch: int) -> None:
        """Gives a share its rows of state: those of its direction, or memory of its own, in which rows keep their numbers."""
        if blocking.own_rows:
            fields = self._rows(part.row_begin, part.row_end, PAGE)
        else:
            fields = self._state.get(part.direction) or self._rows(0, batch)
            self._state[part.direction] = fields
        for name, value in fields.items():
            share[name] = value

    def _rows(self, begin: int, end: int, gap: int = 0) -> dict[str, int]:
        """Finds memory for rows [begin, end) of state and `gap` bytes more; -> by a share's fields, where row 0 would lie."""
        records, planes = self.records, _planes(self.records.spec)
        row = records.row * records.item
        at = records.allocate((sum(planes.values()) * (end - begin) * row + gap) // records.item)
        fields = {"h_plane": (end - begin) * row}
        for name, count in planes.items():
            fields[name] = at - begin * row
            at += count * fields["h_plane"]
        return fields

    def _room_for_copies(self, weights: Weights) -> dict[str, Array]:
        """Finds memory for a thread's copies of recurrent weights, by their names in a share."""
        arrays = weights.forward().arrays
        copies: dict[str, Array] = {name: aligned(arrays[name].size, arrays[name].dtype) for name in self._recurrent}
        for copy in copies.values():
            self.records.hold(copy)
        return copies

    def _allocate(self, share: Any, part: Part, blocking: ForwardBlocking) -> None:
        """Gives a share its scratch memory: slots for a chunk of steps, rows of x, addresses of rows of y."""
        records = self.records
        product, *second = cell_of(records.spec).products
        gates = len(product.h_gates)
        records.panels(share, product.panel)
        records.blocking(share, part, blocking, blocking.copy_groups)
        share["capacity"], share["fused"], share["row_major"] = blocking.chunk, blocking.fused, blocking.row_major
        share["slot_row"], share["slot_panel"] = blocking.slot_row, blocking.slot_panel
        share["slot_group"], share["slot_n_group"] = blocking.slot_group, blocking.slot_group // gates
        if blocking.own_slots or part.direction not in self._slots:
            slots = blocking.slots // records.item
            self._slots[part.direction] = records.allocate(slots), records.allocate(slots // gates) if second else 0
        share["slots"], share["slots_n"] = share["slots_base"], share["slots_n_base"] = self._slots[part.direction]
        share["gathered_row"] = blocking.x_row
        format = format_of(records.spec)
        share["gathered"] = records.allocate(blocking.chunk * blocking.x_row // records.item) + format.row_head
        if format.convert:
            share["converted_row"] = blocking.converted_row
            share["converted"] = records.allocate(blocking.rows * blocking.converted_row // records.item) + format.row_head
        share["row_table"] = records.allocate(blocking.rows * ROW_ENTRY // records.item)


def _planes(spec: Spec) -> dict[str, int]:
    """Lists a share's fields for rows of state, and how many planes of rows each stands for."""
    planes = {"h": 2, **dict.fromkeys(cell_of(spec).planes, 1)}
    if spec.proj_size:
        planes["m"] = 1
    return planes
