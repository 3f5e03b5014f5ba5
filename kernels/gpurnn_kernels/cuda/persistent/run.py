"""Launching a planned pass: arrays to addresses, workspaces, one kernel."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...spec import Spec
from ..host.device import Device, DeviceArray
from .geometry import Geometry
from .kernels import kernel_of
from .pacing import TICKET_BYTES
from .plan_backward import BackwardPlan
from .plan_forward import Plan

ABSENT = 0  # the address of an array that a kernel does without


def forward(
    device: Device,
    plan: Plan,
    spec: Spec,
    weights: Any,  # W_h (G*H, H), b (G*H,), b_hn (H,) of a reset-after GRU
    xp: DeviceArray,  # (T, B, G*H), W_x x
    initial: Sequence[DeviceArray],  # (B, H) each
    lengths: DeviceArray | None,  # (B,) int64
    y: DeviceArray,  # (T, B, H), any strides from step to step and row to row; zero past lengths
    final: Sequence[DeviceArray],  # (B, H) each
    saved: Any = None,  # gates (T, B, G*H), which may be xp, and extra (T, B, H): c, r * h or q
) -> None:
    """Fills y, the final state and what the backward pass needs. Every array but y is contiguous.

    Of a float16 layer, W_h, states, y and r * h are float16, all else is float32.
    """
    T, B = xp.shape[:2]
    read_by_quads = (y, weights.W_h, initial[0])
    g = replace(plan.geometry, aligned=plan.geometry.aligned and all(_aligned(device, array) for array in read_by_quads))
    if spec.cell == "gru_before":
        return _forward_before(device, plan, g, weights, xp, initial, lengths, y, final, saved)
    lstm = spec.cell == "lstm"
    launch = device.launcher(
        kernel_of(g),
        (plan.slices, g.blocks),
        xp,
        weights.W_h,
        weights.b,
        weights.b_hn if spec.cell == "gru_after" else ABSENT,
        initial[0],
        initial[1] if lstm else ABSENT,
        y,
        final[0],
        final[1] if lstm else ABSENT,
        ABSENT if lengths is None else lengths,
        ABSENT if saved is None else saved.gates,
        ABSENT if saved is None else saved.extra,
        tickets(device, plan),
        T,
        B,
        y.strides[0],
        y.strides[1],
        plan.slice_rows,
        shared=g.shared_bytes,
    )
    launch()


def _forward_before(
    device: Device,
    plan: Plan,
    g: Geometry,
    weights: Any,
    xp: DeviceArray,
    initial: Sequence[DeviceArray],
    lengths: DeviceArray | None,
    y: DeviceArray,
    final: Sequence[DeviceArray],
    saved: Any,
) -> None:
    T, B = xp.shape[:2]
    exchange = ABSENT if g.blocks == 1 else device.empty((B, g.hidden), y.dtype)  # r * h of a step
    launch = device.launcher(
        kernel_of(g),
        (plan.slices, g.blocks),
        xp,
        weights.W_h,
        weights.b,
        initial[0],
        y,
        final[0],
        ABSENT if lengths is None else lengths,
        ABSENT if saved is None else saved.gates,
        ABSENT if saved is None else saved.extra,
        exchange,
        tickets(device, plan),
        T,
        B,
        y.strides[0],
        y.strides[1],
        plan.slice_rows,
        shared=g.shared_bytes,
    )
    launch()


def backward(
    device: Device,
    plan: BackwardPlan,
    spec: Spec,
    weights: Any,  # W_h (G*H, H)
    saved: Any,  # as `forward` leaves it
    y: DeviceArray,  # (T, B, H), what `forward` gave
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
    lstm = spec.cell == "lstm"
    prev = saved.extra if lstm else y  # c, h
    alone = g.blocks == 1
    exchange = ABSENT if alone else device.empty((2, plan.slices, g.blocks, g.blocks, g.share), np.dtype(np.float32))
    launch = device.launcher(
        kernel_of(g),
        (plan.slices, g.blocks),
        weights.W_h,
        saved.gates,
        ABSENT if spec.cell == "gru_before" else saved.extra,
        prev,
        initial[1] if lstm else initial[0],
        ABSENT if dy is None else dy,
        dfinal[0],
        dfinal[1] if lstm else ABSENT,
        d_gates,
        dinitial[0],
        dinitial[1] if lstm else ABSENT,
        ABSENT if lengths is None else lengths,
        exchange,
        tickets(device, plan),
        T,
        B,
        prev.strides[0],
        prev.strides[1],
        0 if dy is None else dy.strides[0],
        0 if dy is None else dy.strides[1],
        plan.slice_rows,
        shared=g.shared_bytes,
    )
    launch()


def tickets(device: Device, plan: Plan | BackwardPlan) -> Any:
    """A counter for each slice of the batch: its own to every launch, so that launches on several streams cannot meet."""
    if plan.geometry.blocks == 1:
        return ABSENT
    return device.zeros((plan.slices * TICKET_BYTES // 4,), np.dtype(np.uint32))


def _aligned(device: Device, array: DeviceArray) -> bool:
    """Rows at multiples of 16 bytes."""
    return device.address(array) % 16 == 0 and all(stride % 16 == 0 for stride in array.strides[:-1])
