"""The records that a launch hands to the persistent kernels. Where no dtype is told, a float16 layer's array is float32."""

from typing import NamedTuple

from ..records import Address, Size


class ForwardArguments(NamedTuple):
    xp: Address  # (T, B, G*H): W_x x
    W_h: Address  # (G*H, H), of the layer's dtype
    b: Address  # (G*H,)
    b_hn: Address  # (H,), of a reset-after GRU
    h0: Address  # (B, H), of the layer's dtype
    c0: Address  # (B, H), of the layer's dtype, LSTM
    y: Address  # (T, B, H), of the layer's dtype, zero past lengths
    h_n: Address  # (B, H), of the layer's dtype
    c_n: Address  # (B, H), of the layer's dtype, LSTM
    lengths: Address  # (B,) int64, or 0
    gates: Address  # (T, B, G*H), may be xp: activated, or 0 where nothing is saved
    extra: Address  # (T, B, H): c, q, or r * h of the layer's dtype
    exchange: Address  # (B, H), of the layer's dtype: r * h of a step, reset before
    tickets: Address  # (slices, TICKET_BYTES), zeros
    T: Size
    B: Size
    y_step: Size  # bytes
    y_row: Size
    slice_rows: Size


class BackwardArguments(NamedTuple):
    W_h: Address  # (G*H, H)
    gates: Address  # (T, B, G*H), activated
    extra: Address  # (T, B, H): c, q; a reset-before GRU reads none
    prev: Address  # (T, B, H): c of an LSTM, y of a GRU
    prev0: Address  # (B, H): c or h before the first step
    dy: Address  # (T, B, H), or 0: zeros
    dh_n: Address  # (B, H)
    dc_n: Address  # (B, H), LSTM
    d_gates: Address  # (T, B, 4H) df, di, do, dg or dz, dr, dq, dn; (T, B, 3H) dz, dr, dn reset before
    dh0: Address  # (B, H)
    dc0: Address  # (B, H), LSTM
    lengths: Address  # (B,) int64, or 0
    exchange: Address  # (2, slices, blocks, blocks, share): shares of dh
    tickets: Address  # (slices, TICKET_BYTES), zeros
    T: Size
    B: Size
    prev_step: Size  # bytes
    prev_row: Size
    dy_step: Size
    dy_row: Size
    slice_rows: Size
