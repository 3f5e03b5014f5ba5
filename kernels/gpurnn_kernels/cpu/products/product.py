"""The products of each step: which gates a product makes, how its weights are packed, and the code that runs it.

A *slot* holds the pre-activated gates of one row at one step, in one panel. A share's slots lie `slot_row` bytes apart within
a panel, and `slot_panel` bytes apart from panel to panel. The rows of one panel lie side by side or, for a few rows
(`row_major`), the panels of one row, so that one product makes several. Shares of the same rows use the same slots, but for a
few rows. Steps that project their own x (`fused`) may have slots for one panel: all panels take them in turn, and they stay in
L1 and L2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..codegen.descriptors import V1
from ..codegen.inline import inlined
from ..codegen.intrinsics import call_with
from .microkernel import multiply_in_turn


@inlined
def slot_at(share, panel, slot):
    """Gives the address of a slot of a panel."""
    return share.slots + (panel - share.slot_0) * share.slot_panel + slot * share.slot_row


@inlined
def convert(job, to, to_row, source, source_row, rows, count):
    """Converts rows of `count` floats to the job's format, at `to`. Strides are in bytes."""
    call_with(job.convert_kernel, job.zero, (to, to_row, source, source_row, rows, count))


@inlined
def as_read(job, share, source, rows, count):
    """Gives the address, and the stride in bytes, of rows of state as products read them: as they stand at `source`, or
    converted in the share's own memory."""
    if job.convert_kernel == 0:
        return source, job.row
    convert(job, share.converted, share.converted_row, source, job.row, rows, count)
    return share.converted, share.converted_row


@inlined
def whole_panels(job, panel, count):
    """Gives the number of panels, of `count` from `panel` on, in which each gate has vectors of its own."""
    return min(count, job.H // job.lanes - panel) if job.tail else count


@inlined
def gemm_bias(job, vectors, rows, a, a_row, count, w, depth, init, out, out_row, out_panel, descending):
    """Makes out = init + a w for `count` panels of `vectors` vectors. Addresses and strides are in bytes; panels of w
    are as the microkernel has them, without gaps. Panels of `init` lie side by side, and all rows start from the
    same; `init` does not overlap `out`."""
    step = vectors * V1
    w_panel = (depth + job.head) * step
    multiply_in_turn(
        job, vectors, rows, a, a_row, count, w, w_panel, depth, init, 0, step, out, out_row, out_panel, descending
    )


@inlined
def gemm_add(job, vectors, rows, a, a_row, count, w, depth, out, out_row, out_panel, descending):
    """Makes out += a w for `count` panels of `vectors` vectors. Addresses and strides are in bytes; `out` overlaps neither
    `a` nor `w`."""
    w_panel = (depth + job.head) * vectors * V1
    multiply_in_turn(
        job, vectors, rows, a, a_row, count, w, w_panel, depth, out, out_row, out_panel, out, out_row, out_panel, descending
    )


@inlined
def nothing_put(job, share, slots, panel, whole, count):
    pass


@inlined
def nothing_spread(job, share, rows, at):
    pass


@dataclass(frozen=True)
class Product:
    """A product of one step: its gates of W_x and W_h, which are rows of a packed matrix, and the vectors of a slot that
    W_x x + b starts and W_h a is added to."""

    x_gates: tuple[int, ...]  # gates that W_x makes, in the order of a slot
    h_gates: tuple[int, ...]  # gates that W_h makes
    panel: int = 1  # vectors of units of a panel, 1 or 2; with 1, the gates of the tail may share vectors
    slot: int = 4  # vectors of a slot
    h_at: int = 0  # vectors of a slot before those that W_h makes
    suffix: str = ""  # of the weights' fields: w_x and b in a job, w_h in a share
    slot_at: Any = slot_at  # where a panel's slot lies
    divisor: int = 1  # of the slots' stride: a slot of a second product may be smaller
    put: Any = nothing_put  # fills the vectors of a slot that W_x does not make
    spread: Any = nothing_spread  # gives a vector each to gates that share vectors

    def width(self, wide: int) -> int:
        """Gives the vectors of a packed panel. wide: the vectors of panels that have four of them a vector of units or a
        pair."""
        vectors = self.panel * len(self.h_gates)
        return wide if vectors == 4 else vectors

    def code(self) -> tuple[Callable[..., None], Callable[..., None]]:
        """Gives two functions. `begin` puts W_x x + b into slots, from the first one on. `add_to` adds W_h a to the slots of
        one step.

        Their `count` counts panels or, for panels of two, vectors of units.
        """
        gates, pairs, h_at, divisor, at = len(self.h_gates), self.panel == 2, self.h_at * V1, self.divisor, self.slot_at
        vectors, size, slot_size = self.panel * gates, self.panel * gates * V1, self.slot * V1
        w_x, w_h, bias = (name + self.suffix for name in ("w_x", "w_h", "b"))
        put, spread = self.put, self.spread

        @inlined
        def parts(job, panel, count):
            """Gives whole panels, packed panels of them, vectors of a packed one, and vectors of the remaining one."""
            whole = count // 2 if pairs else whole_panels(job, panel, count)
            wide = job.wide if vectors == 4 else vectors
            return whole, vectors * whole // wide, wide, gates if pairs else job.tail

        @inlined
        def begin(job, share, x, x_row, slots, panel, count, descending):
            whole, packed, wide, rest = parts(job, panel, count)
            row, depth, step = share.slot_row // divisor, job.x_depth, wide * V1 if vectors == 4 else slot_size
            w_size = (depth + job.head) * size
            w, b, out = job[w_x] + panel * w_size, job[bias] + panel * size, at(share, panel, 0)
            gemm_bias(job, wide, slots, x, x_row, packed, w, depth, b, out, row, step, descending)
            if (2 * whole if pairs else whole) < count:
                w, b, out = w + whole * w_size, b + whole * size, out + whole * slot_size
                gemm_bias(job, rest, slots, x, x_row, 1, w, depth, b, out, row, 0, 0)
            put(job, share, slots, panel, whole, count)

        @inlined
        def add_to(job, share, rows, a, a_row, descending, slot, panel, count):
            whole, packed, wide, rest = parts(job, panel, count)
            row, depth, step = share.slot_row // divisor, job.h_depth, wide * V1 if vectors == 4 else slot_size
            w_size = (depth + job.head) * size
            w, out = share[w_h] + panel * w_size, at(share, panel, slot)
            gemm_add(job, wide, rows, a, a_row, packed, w, depth, out + h_at, row, step, descending)
            if (2 * whole if pairs else whole) < count:
                w, out = w + whole * w_size, out + whole * slot_size
                gemm_add(job, rest, rows, a, a_row, 1, w, depth, out, row, 0, 0)
                spread(job, share, rows, out)

        return begin, add_to
