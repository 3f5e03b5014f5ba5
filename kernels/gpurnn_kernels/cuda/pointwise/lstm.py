"""The pointwise part of an LSTM's step, one thread to a few units of a row."""

from functools import cache
from typing import Any

from ..host.device import Kernel
from ..intrinsics.emission import Address, Code, Count, Step, kernel
from .form import RESIDENT_BACK, Variant


@cache
def lstm_forward(variant: Variant) -> Kernel:
    """A step: pre-activated gates -> c, h. Rows past their length keep their state, and y is 0 there."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells

    def lstm_step(
        k: Code,
        gates: Address,  # (T, B, 4H): W_x x + W_h h; with `saved` becomes f, i, o, g
        gates_t: Count,
        bias: Address,  # (4H,), `Weights.pointwise_b`
        c_prev: Address,  # (B, H), or with `saved` (T, B, H), and the step before is t + before
        c_prev_t: Count,
        before: Step,
        c: Address,  # likewise
        c_t: Count,
        y: Address,  # (T, B, H) of any strides
        y_t: Count,
        y_row: Count,
        h_prev: Address,  # (B, H), with `ragged`
        h_n: Address,  # (B, H), with `final` or `ragged`
        c_n: Address,  # (B, H), with `final` and `saved`, or float16
        lengths: Address,  # (B,) int64, with `ragged`
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide

        def previous() -> Any:
            at_c_prev = k.at_step(c_prev, k.builder.add(t, before), c_prev_t) if variant.saved else c_prev
            return w.load(w.at(at_c_prev, row, H, unit), lanes)

        def at_c() -> Any:
            return w.at(k.at_step(c, t, c_t) if variant.saved else c, row, H, unit)

        def at_y() -> Any:
            return k.at_strided(k.at_step(y, t, y_t), row, y_row, unit)

        def leave(h_new: Any, c_new: Any) -> None:
            """The state, for the caller; with `ragged` h is there after every step, since y is 0 past a length."""
            if variant.final or variant.ragged:
                k.store(k.at(h_n, row, H, unit), h_new)
            if variant.final and (variant.saved or k is not w):
                k.store(k.at(c_n, row, H, unit), c_new)

        def step() -> None:
            at_gates = [w.at(k.at_step(gates, t, gates_t), row, 4 * H, unit, gate * H) for gate in range(4)]
            sums = []
            for gate in range(4):
                products, offsets = w.load(at_gates[gate], lanes), w.load(w.at(bias, row, 0, unit, gate * H), lanes)
                sums.append(variant.total(products, offsets, sigma=gate != 3))
            new = [cells.lstm_cell(*parts) for parts in zip(*sums, previous(), strict=True)]
            h_new, c_new = [h for h, _ in new], [c for _, c in new]
            w.store(at_c(), c_new)
            k.store(at_y(), h_new)
            leave(h_new, c_new)
            if variant.saved:
                active = [cells.lstm_gates(*parts) for parts in zip(*sums, strict=True)]
                for gate in range(4):
                    w.store(at_gates[gate], [one[gate] for one in active])

        def keep() -> None:
            c_kept = previous()
            w.store(at_c(), c_kept)
            k.store(at_y(), k.zeros(lanes))
            leave(k.load(k.at(h_prev, row, H, unit), lanes), c_kept)

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    return kernel(lstm_step, variant.storage, f"lstm_forward_{variant.suffix}", variant.resident)


@cache
def lstm_backward(variant: Variant) -> Kernel:
    """A step of back-propagation: gradients of h and c -> of the pre-activated gates, and of c before. Rows past their length
    give the gates zeros and keep the gradients of their state."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells

    def lstm_step_back(
        k: Code,
        gates: Address,  # (T, B, 4H): f, i, o, g
        gates_t: Count,
        c_prev: Address,  # (T, B, H) or (B, H), the step before is t + before
        c_prev_t: Count,
        before: Step,
        c: Address,  # (T, B, H)
        c_t: Count,
        dy: Address,  # (T, B, H) of any strides
        dy_t: Count,
        dy_row: Count,
        dh: Address,  # (B, H), without dy; with `ragged` left at zero, for a product to be added to
        dc: Address,  # (B, H), moves on
        d_gates: Address,  # (T, B, 4H)
        d_gates_t: Count,
        lengths: Address,
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide

        def at_d_gate(gate: int) -> Any:
            return k.at(k.at_step(d_gates, t, d_gates_t), row, 4 * H, unit, gate * H)

        def step() -> None:
            at_gates = k.at_step(gates, t, gates_t)
            active = [w.load(w.at(at_gates, row, 4 * H, unit, gate * H), lanes) for gate in range(4)]
            at_c_prev = k.at_step(c_prev, k.builder.add(t, before), c_prev_t)
            cs = [w.load(w.at(at, row, H, unit), lanes) for at in (at_c_prev, k.at_step(c, t, c_t))]
            from_y = k.load(k.at_strided(k.at_step(dy, t, dy_t), row, dy_row, unit), lanes)
            at_dh, at_dc = w.at(dh, row, H, unit), w.at(dc, row, H, unit)
            of_h = [a + b for a, b in zip(from_y, w.load(at_dh, lanes), strict=True)]
            found = [cells.lstm_cell_grad(*parts) for parts in zip(*active, *cs, of_h, w.load(at_dc, lanes), strict=True)]
            for gate in range(4):
                k.store(at_d_gate(gate), [one[gate] for one in found])
            w.store(at_dc, [one[4] for one in found])
            if variant.ragged:
                w.store(at_dh, k.zeros(lanes))

        def keep() -> None:
            for gate in range(4):
                k.store(at_d_gate(gate), k.zeros(lanes))

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    return kernel(lstm_step_back, variant.storage, f"lstm_backward_{variant.suffix}", RESIDENT_BACK)
