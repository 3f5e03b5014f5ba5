"""Integers of quantised weights as layers keep them: 8 bits, a scale for each row, symmetric around zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpurnn_kernels.quantised import Quantised, check_scales
from gpurnn_kernels.spec import Array

from .. import checks


class Weights:
    """A quantised matrix (rows, K) of a source: (integers - zero point) * scale, of each row its own."""

    def __init__(self, label: str, integers: Array, scales: Any, zeros: Any) -> None:
        """scales, zeros: numbers, or arrays (rows,). Raises ValueError for scales that are not finite and above 0, and for
        zero points that are no integers of these."""
        self._label = label
        numbers, places = np.asarray(scales, np.float32), np.asarray(zeros, np.int64)
        for name, one in (("scales", numbers), ("zero points", places)):
            if one.shape not in ((), integers.shape[:1]):
                raise ValueError(f"{label}: {name}: expected one, or one for each of {len(integers)} rows, got {one.shape}")
        self._scales = np.broadcast_to(numbers, integers.shape[:1])
        check_scales(f"{label}: scales", self._scales)
        limits = np.iinfo(integers.dtype)
        if places.size and not limits.min <= places.min() <= places.max() <= limits.max:
            raise ValueError(f"{label}: zero points: expected {limits.min}..{limits.max}, got {places.min()}..{places.max()}")
        self._moved = integers.astype(np.int32) - np.broadcast_to(places, integers.shape[:1]).astype(np.int32)[:, None]

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, K)."""
        rows, columns = self._moved.shape
        return rows, columns

    def floats(self) -> Array:
        """Gives the numbers that they stand for, as the source computes them."""
        found: Array = self._moved.astype(np.float32) * self._scales[:, None]
        return found

    def of(self, precision: str | None) -> Array | Quantised:
        """Gives what a layer of this precision is made of: the integers for "int8", else floats.

        Raises NotImplementedError for zero points away from the middle of the integers.
        """
        if precision != "int8":
            return self.floats()
        least, most = int(self._moved.min(initial=0)), int(self._moved.max(initial=0))
        if least < -128 or most > 127:
            raise NotImplementedError(
                f"{self._label}: zero points: its integers less their zero points lie in {least}..{most}; products take "
                "8 bits, -128..127, as weights have that are symmetric around zero; precision='float32' gives the layer of "
                "the numbers that they stand for, and its with_precision('int8') rounds those anew"
            )
        return Quantised(self._moved.astype(np.int8), self._scales.astype(np.float32))


def chosen(precision: str | None, quantised: bool) -> Any:
    """Gives the precision of a layer: that of its source is "int8" if it is quantised."""
    return checks.asked(precision, "int8" if quantised else None)
