"""Launching a planned pass: arrays to addresses, workspaces, one kernel."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..host.device import Device, DeviceArray
from .arguments import BackwardArguments, ForwardArguments
from .budget import Plan
from .kernels import kernel_of
from .pacing import TICKET_BYTES
from .plan_backward import BackwardPlan
from .plan_forward import ForwardPlan

ABSENT = 0  # the address of an array that a kernel does without


def run_forward(
    device: Device,
    plan: ForwardPlan,
    weights: Any,  # W_h (G*H, H), b (G*H,), b_hn (H,) of a reset-after GRU
    *,
    xp: DeviceArray,  # (T, B, G*H), W_x x
    initial: Sequence[DeviceArray],  # (B, H) each
    lengths: DeviceArray | None,  # (B,) int64
    y: DeviceArray,  # (T, B, H), any strides from step to step and row to row; zero past lengths
    final: Sequence[DeviceArray],  # (B, H) each
    saved: Any = None,  # gates (T, B, G*H), which may be xp, and extra (T, B, H): c, r * h or q
) -> None:
    """Fills y, the final state and what the backward pass needs. Every array but y is contiguous.

    In a float16 layer W_h, states, y and r * h are float16, all else is float32.
    """
    T, B = xp.shape[:2]
    read_by_quads = (y, weights.W_h, initial[0])
    g = replace(plan.geometry, aligned=plan.geometry.aligned and all(_aligned(device, array) for array in read_by_quads))
    exchanged = g.resets_before and not g.alone
    arguments = ForwardArguments(
        xp=xp,
        W_h=weights.W_h,
        b=weights.b,
        b_hn=weights.b_hn,
        h0=initial[0],
        c0=initial[1] if g.has_c else ABSENT,
        y=y,
        h_n=final[0],
        c_n=final[1] if g.has_c else ABSENT,
        lengths=ABSENT if lengths is None else lengths,
        gates=ABSENT if saved is None else saved.gates,
        extra=ABSENT if saved is None else saved.extra,
        exchange=device.empty((B, g.hidden), y.dtype) if exchanged else ABSENT,
        tickets=tickets(device, plan),
        T=T,
        B=B,
        y_step=y.strides[0],
        y_row=y.strides[1],
        slice_rows=plan.slice_rows,
    )
    device.launcher(kernel_of(g), (plan.slices, g.blocks), arguments, shared=g.shared_bytes)()


def run_backward(
    device: Device,
    plan: BackwardPlan,
    weights: Any,  # W_h (G*H, H)
    *,
    saved: Any,  # as `run_forward` leaves it
    y: DeviceArray,  # (T, B, H), what `run_forward` gave
    initial: Sequence[DeviceArray],  # (B, H) each
    lengths: DeviceArray | None,  # (B,) int64
    dy: DeviceArray | None,  # (T, B, H), any strides from step to step and row to row; None: zeros
    dfinal: Sequence[DeviceArray],  # (B, H) each
    d_gates: DeviceArray,  # (T, B, 4H) df, di, do, dg or dz, dr, dq, dn; (T, B, 3H) dz, dr, dn reset before
    dinitial: Sequence[DeviceArray],  # (B, H) each
) -> None:
    """Fills d_gates, with zeros past lengths, and dinitial. Every array but y and dy is contiguous."""
    T, B = saved.gates.shape[:2]
    g = plan.geometry
    prev = saved.extra if g.has_c else y  # c, h
    shares = (2, plan.slices, g.blocks, g.blocks, g.share)
    arguments = BackwardArguments(
        W_h=weights.W_h,
        gates=saved.gates,
        extra=saved.extra,
        prev=prev,
        prev0=initial[1] if g.has_c else initial[0],
        dy=ABSENT if dy is None else dy,
        dh_n=dfinal[0],
        dc_n=dfinal[1] if g.has_c else ABSENT,
        d_gates=d_gates,
        dh0=dinitial[0],
        dc0=dinitial[1] if g.has_c else ABSENT,
        lengths=ABSENT if lengths is None else lengths,
        exchange=ABSENT if g.alone else device.empty(shares, np.dtype(np.float32)),
        tickets=tickets(device, plan),
        T=T,
        B=B,
        prev_step=prev.strides[0],
        prev_row=prev.strides[1],
        dy_step=0 if dy is None else dy.strides[0],
        dy_row=0 if dy is None else dy.strides[1],
        slice_rows=plan.slice_rows,
    )
    device.launcher(kernel_of(g), (plan.slices, g.blocks), arguments, shared=g.shared_bytes)()


def tickets(device: Device, plan: Plan) -> Any:
    """A counter for each slice of the batch: its own to every launch, so that launches on several streams cannot meet."""
    if plan.geometry.alone:
        return ABSENT
    return device.zeros((plan.slices * TICKET_BYTES // 4,), np.dtype(np.uint32))


def _aligned(device: Device, array: DeviceArray) -> bool:
    """Rows at multiples of 16 bytes."""
    return device.address(array) % 16 == 0 and all(stride % 16 == 0 for stride in array.strides[:-1])
