"""The pointwise part of a GRU's step forward, one thread to a few units of a row.

h before is read from an array (T, B, H) or (B, H): `h_prev`, its strides of steps and rows, and `before`, how far the step
before is from t.
"""

from functools import cache
from typing import Any

from ..host.device import Kernel
from ..intrinsics.emission import Address, Code, Count, Step, kernel
from .form import Variant


@cache
def gru_after_forward(variant: Variant) -> Kernel:
    """Reset after, a step: both products -> h. Rows past their length keep their state, and y is 0 there."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells
    sigmoid, tanh = variant.activations.sigmoid, variant.activations.tanh

    def gru_after_step(
        k: Code,
        gates: Address,  # (T, B, 3H): W_x x; with `saved` becomes z, r, n
        gates_t: Count,
        products: Address,  # (B, 3H): W_h h
        bias: Address,  # (3H,), `Weights.pointwise_b`
        b_hn: Address,  # (H,)
        h_prev: Address,
        h_prev_t: Count,
        h_prev_row: Count,
        before: Step,
        q: Address,  # (T, B, H), with `saved`: W_hn h + b_hn
        q_t: Count,
        y: Address,  # (T, B, H) of any strides
        y_t: Count,
        y_row: Count,
        h_n: Address,  # (B, H), with `final` or `ragged`
        lengths: Address,  # (B,) int64, with `ragged`
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide

        def load(address: Any, width: int, gate: int) -> Any:
            return w.load(w.at(address, row, width, unit, gate * H), lanes)

        def previous() -> Any:
            return k.load(k.at_strided(k.at_step(h_prev, k.builder.add(t, before), h_prev_t), row, h_prev_row, unit), lanes)

        def leave(y_new: Any, h_new: Any) -> None:
            k.store(k.at_strided(k.at_step(y, t, y_t), row, y_row, unit), y_new)
            if variant.final or variant.ragged:
                k.store(k.at(h_n, row, H, unit), h_new)

        def step() -> None:
            at_gates = k.at_step(gates, t, gates_t)

            def both(gate: int) -> Any:
                pairs = zip(load(at_gates, 3 * H, gate), load(products, 3 * H, gate), strict=True)
                return [of_x + of_h for of_x, of_h in pairs]

            r_, z_ = (variant.total(both(gate), load(bias, 0, gate), sigma=True) for gate in (1, 0))
            q_new = variant.total(load(products, 3 * H, 2), load(b_hn, 0, 0), sigma=False)
            n_x = variant.total(load(at_gates, 3 * H, 2), load(bias, 0, 2), sigma=False)
            n_ = [cells.gru_candidate(*parts) for parts in zip(r_, q_new, n_x, strict=True)]
            h_new = [cells.gru_update(*parts) for parts in zip(z_, n_, previous(), strict=True)]
            leave(h_new, h_new)
            if variant.saved:
                for gate, (activation, values) in enumerate(((sigmoid, z_), (sigmoid, r_), (tanh, n_))):
                    w.store(w.at(at_gates, row, 3 * H, unit, gate * H), [activation(value) for value in values])
                w.store(w.at(k.at_step(q, t, q_t), row, H, unit), q_new)

        def keep() -> None:
            leave(k.zeros(lanes), previous())

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    # on compute capability 8.0, 32 registers do not hold its doubles
    resident = min(variant.resident, 6) if variant.storage == 64 else variant.resident
    return kernel(gru_after_step, variant.storage, f"gru_after_forward_{variant.suffix}", resident)


@cache
def gru_reset_forward(variant: Variant) -> Kernel:
    """Reset before, between the two products of a step: r * h, what W_hn multiplies; zeros for rows past their length."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells
    sigmoid = variant.activations.sigmoid

    def gru_reset_step(
        k: Code,
        gates: Address,  # (T, B, 3H): W_x x, z and r with W_h h; with `saved` r becomes itself
        gates_t: Count,
        bias: Address,  # (3H,), `Weights.pointwise_b`
        h_prev: Address,
        h_prev_t: Count,
        h_prev_row: Count,
        before: Step,
        rh: Address,  # (B, H), or with `saved` (T, B, H)
        rh_t: Count,
        lengths: Address,  # (B,) int64, with `ragged`
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide

        def at_rh() -> Any:
            return k.at(k.at_step(rh, t, rh_t) if variant.saved else rh, row, H, unit)

        def step() -> None:
            at_r = w.at(k.at_step(gates, t, gates_t), row, 3 * H, unit, H)
            r_ = variant.total(w.load(at_r, lanes), w.load(w.at(bias, row, 0, unit, H), lanes), sigma=True)
            at_h = k.at_strided(k.at_step(h_prev, k.builder.add(t, before), h_prev_t), row, h_prev_row, unit)
            k.store(at_rh(), [cells.gru_reset(*parts) for parts in zip(r_, k.load(at_h, lanes), strict=True)])
            if variant.saved:
                w.store(at_r, [sigmoid(value) for value in r_])

        def keep() -> None:
            k.store(at_rh(), k.zeros(lanes))

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    return kernel(gru_reset_step, variant.storage, f"gru_reset_forward_{variant.suffix}", variant.resident)


@cache
def gru_before_forward(variant: Variant) -> Kernel:
    """Reset before, the end of a step: pre-activated z and n -> h. Rows past their length keep their state, and y is 0."""
    H, lanes, cells = variant.units, variant.lanes, variant.cells
    sigmoid, tanh = variant.activations.sigmoid, variant.activations.tanh

    def gru_before_step(
        k: Code,
        gates: Address,  # (T, B, 3H): both products; with `saved` z and n become themselves
        gates_t: Count,
        bias: Address,  # (3H,), `Weights.pointwise_b`
        h_prev: Address,
        h_prev_t: Count,
        h_prev_row: Count,
        before: Step,
        y: Address,  # (T, B, H) of any strides
        y_t: Count,
        y_row: Count,
        h_n: Address,  # (B, H), with `final` or `ragged`
        lengths: Address,  # (B,) int64, with `ragged`
        batch: Count,
        t: Step,
    ) -> None:
        row, unit = k.row_and_unit(variant.block)
        w = k.wide

        def previous() -> Any:
            return k.load(k.at_strided(k.at_step(h_prev, k.builder.add(t, before), h_prev_t), row, h_prev_row, unit), lanes)

        def leave(y_new: Any, h_new: Any) -> None:
            k.store(k.at_strided(k.at_step(y, t, y_t), row, y_row, unit), y_new)
            if variant.final or variant.ragged:
                k.store(k.at(h_n, row, H, unit), h_new)

        def step() -> None:
            at = {gate: w.at(k.at_step(gates, t, gates_t), row, 3 * H, unit, gate * H) for gate in (0, 2)}
            z_, n_ = (
                variant.total(w.load(at[g], lanes), w.load(w.at(bias, row, 0, unit, g * H), lanes), sigma=g == 0)
                for g in (0, 2)
            )
            h_new = [cells.gru_update(*parts) for parts in zip(z_, n_, previous(), strict=True)]
            leave(h_new, h_new)
            if variant.saved:
                w.store(at[0], [sigmoid(value) for value in z_])
                w.store(at[2], [tanh(value) for value in n_])

        def keep() -> None:
            leave(k.zeros(lanes), previous())

        k.for_rows(variant.block, row, batch, unit, H, lengths if variant.ragged else None, t, step, keep)

    return kernel(gru_before_step, variant.storage, f"gru_before_forward_{variant.suffix}", variant.resident)
