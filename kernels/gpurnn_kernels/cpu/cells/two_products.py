"""Steps of cells with two products. The second one multiplies what a gate has made of h, which must be done for all units
before.

Panels are pairs of vectors of units. A slot holds their gates of the first product (z r z r). The gates of the second product
(n n) lie in a slot of their own, a vector each.
"""

from typing import Any

from ..codegen.descriptors import V1
from ..codegen.inline import inlined, named
from ..codegen.intrinsics import record
from ..passes.backward import recurrent_product
from ..passes.forward import address_rows
from ..products.product import Product, as_read, slot_at
from .step import complete_dh, is_descending, next_panel, over_blocks, over_rows, panels_here, plane_at


@inlined
def blocks_in(job, panel, count):
    """Gives the vectors of units in `count` panels from `panel` on."""
    return min(2 * count, -(-job.H // job.lanes) - 2 * panel)


class Products:
    """The two products of a step, and the slots in which the equations find their gates."""

    def __init__(self, gates: tuple[int, ...], candidate: int) -> None:
        """Makes the products. `gates` are those of the first product; `candidate` is the gate of the second one."""
        count = len(gates)

        @inlined
        def slot_n_at(share, panel, slot):
            return share.slots_n + ((panel - share.slot_0) * share.slot_panel + slot * share.slot_row) // count

        @inlined
        def slot_of(share, block, slot):
            return slot_at(share, block // 2, slot) + (block & 1) * (count * V1)

        @inlined
        def slot_n_of(share, block, slot):
            return slot_n_at(share, block // 2, slot) + (block & 1) * V1

        self.slot, self.slot_n = slot_of, slot_n_of  # of one vector of units
        self.first = Product(gates, gates, panel=2, slot=2 * count)
        self.second = Product((candidate,), (candidate,), panel=2, slot=2, suffix="_n", slot_at=slot_n_at, divisor=count)
        begin_first, self.add_first = self.first.code()
        begin_second, self.add_second = self.second.code()

        @inlined
        def begin(job, share, x, x_row, slots, panel, count, descending):
            blocks = blocks_in(job, panel, count)
            begin_first(job, share, x, x_row, slots, panel, blocks, descending)
            begin_second(job, share, x, x_row, slots, panel, blocks, descending)

        self.begin = begin


def make_step(name: str, products: Products, reset: Any, update: Any) -> tuple[Any, Any]:
    """Makes the kernels of a step's two phases. `reset` and `update` are the equations after the first and after the second
    product."""
    begin, add_first, add_second = products.begin, products.add_first, products.add_second
    reset_cells, update_cells = over_rows(reset), over_rows(update)

    def step(job, share, first, rows, s, slot):
        job, share = record(job), record(share)
        address_rows(job, share, first, rows, s)
        h, h_row = as_read(job, share, share.h + (s & 1) * share.h_plane + first * job.row, rows, job.P)
        descending = is_descending(share, s)
        panel = next_panel(share, descending)
        while panel >= 0:
            count = panels_here(share, panel)
            blocks = blocks_in(job, panel, count)
            if share.fused:
                begin(job, share, share.x, share.x_row, rows, panel, count, descending)  # 1. W_x x + b, of a stream
            add_first(job, share, rows, h, h_row, descending, slot, panel, blocks)  # 2. z, r
            reset_cells(job, share, first, rows, s, slot, 2 * panel, blocks)  # 3. r * h
            panel = next_panel(share, descending)

    def second(job, share, first, rows, s, slot):
        job, share = record(job), record(share)
        address_rows(job, share, first, rows, s)
        rh, rh_row = as_read(job, share, share.rh + first * job.row, rows, job.P)
        descending = is_descending(share, s)
        panel = next_panel(share, descending)
        while panel >= 0:
            blocks = blocks_in(job, panel, panels_here(share, panel))
            add_second(job, share, rows, rh, rh_row, descending, slot, panel, blocks)  # 4. n
            update_cells(job, share, first, rows, s, slot, 2 * panel, blocks)  # 5. h
            panel = next_panel(share, descending)

    return named(name, step), named(f"{name}_second", second)


def make_step_back(name: str, gates: int, update: Any, reset: Any) -> tuple[Any, Any]:
    """Makes the kernels of a step's two phases back. `gates` counts those of the first product."""
    update_cells, reset_cells = over_blocks(update), over_blocks(reset)

    def step_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        (plane, plane_row), (after, _) = plane_at(job, first, s), plane_at(job, first, s + 1)
        panel = next_panel(share, s & 1)
        while panel >= 0:
            count = panels_here(share, panel)
            complete_dh(job, share, first, rows, s, before, after, plane_row, gates, panel, count)  # 1. dh
            if s >= 0:
                update_cells(job, share, first, rows, s, plane, plane_row, panel, count)  # 2. dn_
            panel = next_panel(share, s & 1)

    def second_back(job, share, first, rows, s, before):
        job, share = record(job), record(share)
        (plane, plane_row), drh = plane_at(job, first, s), job.drh + first * job.row
        panel = next_panel(share, s & 1)
        while panel >= 0:
            count = panels_here(share, panel)
            recurrent_product(job, share, rows, s, plane + job.step_n, plane_row, 1, job.w_h_n, drh, panel, count)  # 3. d(r h)
            reset_cells(job, share, first, rows, s, plane, plane_row, panel, count)  # 4. the other gates' gradients
            panel = next_panel(share, s & 1)

    return named(name, step_back), named(f"{name}_second", second_back)
