"""The pointwise part of a GRU's step of back-propagation, one thread to a few units of a row.

Rows past their length give their gates zeros and keep the gradient of their state. h before is read from `h_prev` as in
the forward pass; in ragged batches a row's first step reads it from h_0, since y is 0 past a length.
"""

from functools import cache
from typing import Any

from ..host.device import Kernel
from ..intrinsics.emission import Address, Code, Count, Step, kernel
from ..intrinsics.number import INT64
from .form import RESIDENT_BACK, Variant


def _previous(
    k: Code,
    variant: Variant,
    h_prev: Any,
    h_prev_t: Any,
    h_prev_row: Any,
    before: Any,
    h_0: Any,
    lengths: Any,
    last: Any,
    t: Any,
) -> Any:
    """The function that loads h of the step before; last: T - 1 of a reverse direction, else -1."""
    b = k.builder
    row, unit = k.row_and_unit(variant.block)

    def load() -> Any:
        address = k.at_strided(k.at_step(h_prev, b.add(t, before), h_prev_t), row, h_prev_row, unit)
        if variant.ragged:
            end = b.sub(k.load_int64(lengths, row), INT64(1))
            wide = b.sext(last, INT64)
            of_reverse = b.select(b.icmp_signed("<", end, wide), end, wide)
            start = b.select(b.icmp_signed("<", wide, INT64(0)), INT64(0), of_reverse)
            starts = b.icmp_signed("==", b.sext(t, INT64), start)
            address = b.select(starts, k.at(h_0, row, variant.units, unit), address)
        return k.load(address, variant.lanes)

    return load


@cache
def gru_after_backward(variant: Variant) -> Kernel:
    """Reset after, a step: gradient of h -> of the pre-activated gates and q, and the part of h before that passes none."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells

    def gru_after_step_back(
        k: Code,
        gates: Address,  # (T, B, 3H): z, r, n
        gates_t: Count,
        q: Address,  # (T, B, H)
        q_t: Count,
        h_prev: Address,
        h_prev_t: Count,
        h_prev_row: Count,
        before: Step,
        h_0: Address,  # (B, H), with `ragged`
        dy: Address,  # (T, B, H) of any strides
        dy_t: Count,
        dy_row: Count,
        dh: Address,  # (B, H), without dy; left with the part that passes no gate, for a product to be added to
        d_gates: Address,  # (T, B, 4H): z, r, q, n
        d_gates_t: Count,
        lengths: Address,
        last: Step,
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide
        previous = _previous(k, variant, h_prev, h_prev_t, h_prev_row, before, h_0, lengths, last, t)

        def store(gate: int, values: Any) -> None:
            k.store(k.at(k.at_step(d_gates, t, d_gates_t), row, 4 * H, unit, gate * H), values)

        def step() -> None:
            z, r, n = (w.load(w.at(k.at_step(gates, t, gates_t), row, 3 * H, unit, gate * H), lanes) for gate in range(3))
            from_y = k.load(k.at_strided(k.at_step(dy, t, dy_t), row, dy_row, unit), lanes)
            at_dh = w.at(dh, row, H, unit)
            of_h = [a + b for a, b in zip(from_y, w.load(at_dh, lanes), strict=True)]
            update = [cells.gru_update_grad(*parts) for parts in zip(z, n, previous(), of_h, strict=True)]
            dz, dn, rest = ([one[i] for one in update] for i in range(3))
            qs = w.load(w.at(k.at_step(q, t, q_t), row, H, unit), lanes)
            candidate = [cells.gru_candidate_grad(*parts) for parts in zip(r, qs, dn, strict=True)]
            dr, dq = ([one[i] for one in candidate] for i in range(2))
            for gate, values in enumerate((dz, dr, dq, dn)):
                store(gate, values)
            w.store(at_dh, rest)

        def keep() -> None:
            for gate in range(4):
                store(gate, k.zeros(lanes))

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    return kernel(gru_after_step_back, variant.storage, f"gru_after_backward_{variant.suffix}", RESIDENT_BACK)


@cache
def gru_before_backward(variant: Variant) -> Kernel:
    """Reset before, the first half of a step: gradient of h -> of pre-activated z and n, and the part of h before that passes
    neither."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells

    def gru_before_step_back(
        k: Code,
        gates: Address,  # (T, B, 3H): z, r, n
        gates_t: Count,
        h_prev: Address,
        h_prev_t: Count,
        h_prev_row: Count,
        before: Step,
        h_0: Address,  # (B, H), with `ragged`
        dy: Address,  # (T, B, H) of any strides
        dy_t: Count,
        dy_row: Count,
        dh: Address,  # (B, H), without dy; left with the part that passes no gate
        d_gates: Address,  # (T, B, 3H)
        d_gates_t: Count,
        lengths: Address,
        last: Step,
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide
        previous = _previous(k, variant, h_prev, h_prev_t, h_prev_row, before, h_0, lengths, last, t)

        def at_d_gate(gate: int) -> Any:
            return k.at(k.at_step(d_gates, t, d_gates_t), row, 3 * H, unit, gate * H)

        def step() -> None:
            z, n = (w.load(w.at(k.at_step(gates, t, gates_t), row, 3 * H, unit, gate * H), lanes) for gate in (0, 2))
            from_y = k.load(k.at_strided(k.at_step(dy, t, dy_t), row, dy_row, unit), lanes)
            at_dh = w.at(dh, row, H, unit)
            of_h = [a + b for a, b in zip(from_y, w.load(at_dh, lanes), strict=True)]
            found = [cells.gru_update_grad(*parts) for parts in zip(z, n, previous(), of_h, strict=True)]
            k.store(at_d_gate(0), [one[0] for one in found])
            k.store(at_d_gate(2), [one[1] for one in found])
            w.store(at_dh, [one[2] for one in found])

        def keep() -> None:
            for gate in (0, 2):
                k.store(at_d_gate(gate), k.zeros(lanes))

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    return kernel(gru_before_step_back, variant.storage, f"gru_before_backward_{variant.suffix}", RESIDENT_BACK)


@cache
def gru_reset_backward(variant: Variant) -> Kernel:
    """Reset before, the second half: gradient of r * h -> of pre-activated r, and of h before."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells

    def gru_reset_step_back(
        k: Code,
        gates: Address,  # (T, B, 3H): z, r, n
        gates_t: Count,
        h_prev: Address,
        h_prev_t: Count,
        h_prev_row: Count,
        before: Step,
        h_0: Address,  # (B, H), with `ragged`
        d_rh: Address,  # (B, H): W_hn^T dn
        dh: Address,  # (B, H), moves on; the product with W_z and W_r is added to it
        d_gates: Address,  # (T, B, 3H)
        d_gates_t: Count,
        lengths: Address,
        last: Step,
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide
        previous = _previous(k, variant, h_prev, h_prev_t, h_prev_row, before, h_0, lengths, last, t)

        def at_dr() -> Any:
            return k.at(k.at_step(d_gates, t, d_gates_t), row, 3 * H, unit, H)

        def step() -> None:
            r = w.load(w.at(k.at_step(gates, t, gates_t), row, 3 * H, unit, H), lanes)
            d = w.load(w.at(d_rh, row, H, unit), lanes)
            found = [cells.gru_reset_grad(*parts) for parts in zip(r, previous(), d, strict=True)]
            k.store(at_dr(), [one[0] for one in found])
            at_dh = w.at(dh, row, H, unit)
            w.store(at_dh, [a + one[1] for a, one in zip(w.load(at_dh, lanes), found, strict=True)])

        def keep() -> None:
            k.store(at_dr(), k.zeros(lanes))

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    return kernel(gru_reset_step_back, variant.storage, f"gru_reset_backward_{variant.suffix}", RESIDENT_BACK)
