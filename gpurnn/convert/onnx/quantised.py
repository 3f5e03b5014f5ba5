"""Integers of an ONNX model with their scales and zero points, of DequantizeLinear and DynamicQuantizeLSTM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.spec import Array

from ..integers import Weights, chosen

BYTES = (np.int8, np.uint8)


class Linear(NamedTuple):
    """A tensor of numbers (integers - zero point) * scale."""

    label: str
    integers: Array
    scales: Array  # float32, in as many dimensions as the integers, 1 along those that share one
    zeros: Array  # as the scales

    def floats(self) -> Array:
        """Gives the numbers."""
        found: Array = (self.integers.astype(np.float32) - self.zeros.astype(np.float32)) * self.scales
        return found

    def directions(self) -> list[Weights]:
        """Gives matrices (D, rows, K) one by one. Raises ValueError for scales and NotImplementedError for an arrangement that
        no layer has."""
        if self.integers.ndim != 3 or self.integers.dtype not in BYTES:
            raise ValueError(
                f"{self.label}: expected 8-bit integers (D, rows, K), got {self.integers.dtype} {self.integers.shape}"
            )
        if self.scales.shape[2] != 1:
            raise NotImplementedError(
                f"{self.label}: scales: it has one for each column; 8-bit products take one for each row or one for all; "
                "precision='float32' gives the layer of the numbers that they stand for"
            )
        shape = (*self.integers.shape[:2], 1)
        scales, zeros = (np.broadcast_to(one, shape)[..., 0] for one in (self.scales, self.zeros))
        return [Weights(self.label, *one) for one in zip(self.integers, scales, zeros, strict=True)]


def exact(linear: Mapping[str, Linear], precision: str | None) -> dict[str, list[Weights]]:
    """Gives the matrices that an int8 layer is made of; none where W and R are not both integers, or the layer's precision
    is to be another. Raises as `directions` does."""
    if len(linear) < 2 or chosen(precision, True) != "int8":
        return {}
    return {letter: one.directions() for letter, one in linear.items()}


def dequantized(label: str, integers: Array, scale: Any, zero: Any, axis: int) -> Linear:
    """Takes the inputs of DequantizeLinear. Raises ValueError for those that it cannot have."""
    if integers.dtype not in (*BYTES, np.int32):
        raise ValueError(f"{label}: DequantizeLinear: expected 8-bit or 32-bit integers, got {integers.dtype}")
    zero = np.zeros((), integers.dtype) if zero is None else zero
    parts = []
    for name, one in (("scale", scale), ("zero point", zero)):
        wanted: Any = np.float32 if name == "scale" else integers.dtype
        if not isinstance(one, np.ndarray) or one.dtype != wanted:
            got = getattr(one, "dtype", "nothing")
            raise ValueError(f"{label}: DequantizeLinear: {name}: expected {np.dtype(wanted)}, got {got}")
        shape = [1] * integers.ndim
        if one.size != 1:
            if not -integers.ndim <= axis < integers.ndim or one.shape != integers.shape[axis : axis + 1 or None]:
                raise ValueError(
                    f"{label}: DequantizeLinear: {name}: expected one for all, or one for each of axis {axis} of "
                    f"{integers.shape}, got shape {one.shape}"
                )
            shape[axis] = one.size
        parts.append(one.reshape(shape))
    return Linear(label, integers, *parts)


def of_dynamic(label: str, integers: Array, scale: Array, zero: Array) -> Linear:
    """Takes a weight (D, K, rows) of DynamicQuantizeLSTM, its scales and zero points (D,) or (D, rows)."""
    if integers.ndim != 3 or integers.dtype not in BYTES:
        raise ValueError(f"{label}: expected 8-bit integers (D, K, 4*H), got {integers.dtype} {integers.shape}")
    count, _, rows = integers.shape
    parts = []
    for name, one in (("scale", scale), ("zero_point", zero)):
        wanted: Any = np.float32 if name == "scale" else integers.dtype
        if one.dtype != wanted or one.shape not in ((count,), (count, rows)):
            shapes = f"{(count,)} or {(count, rows)}"
            raise ValueError(f"{label}_{name}: expected {np.dtype(wanted)} of shape {shapes}, got {one.dtype} {one.shape}")
        parts.append(one.reshape(count, -1, 1))
    return Linear(label, integers.transpose(0, 2, 1), *parts)
