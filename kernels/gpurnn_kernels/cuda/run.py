"""One direction of one layer over a batch of sequences: what the passes on a GPU work with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec import Spec
from .host.device import Device, DeviceArray
from .host.weights import Weights
from .pointwise.form import Variant

LARGEST = 2**32  # what indices and strides in bytes stay below


@dataclass(frozen=True)
class Run:
    device: Device
    spec: Spec
    weights: Weights
    steps: int
    batch: int
    lengths: DeviceArray | None  # (B,) int64, of any values: clamped where they are read

    def __post_init__(self) -> None:
        if self.batch * 4 * self.spec.hidden_size * 8 >= LARGEST:
            raise ValueError(f"B * H: expected below {LARGEST // 32} on a GPU, got {self.batch} * {self.spec.hidden_size}")
        if self.steps * self.batch >= LARGEST:
            raise ValueError(f"T * B: expected below {LARGEST} on a GPU, got {self.steps} * {self.batch}")

    @property
    def to_previous(self) -> int:
        """The distance from a step to the one whose state it starts from."""
        return 1 if self.spec.reverse else -1

    @property
    def order(self) -> range:
        return range(self.steps - 1, -1, -1) if self.spec.reverse else range(self.steps)

    def variant(self, *arrays: DeviceArray, saved: bool = False) -> Variant:
        """The form of a pointwise kernel for arrays that callers made: 128-bit loads where they all allow it. What this
        package allocates lies on boundaries of 256 bytes."""
        item = self.spec.dtype.itemsize
        lanes = 16 // self.wide.itemsize
        wide = self.spec.hidden_size % lanes == 0 and all(self._on_vectors(array) for array in arrays)
        return Variant(
            units=self.spec.hidden_size,
            storage=8 * item,
            lanes=lanes if wide else 1,
            ragged=self.lengths is not None,
            saved=saved,
            fast_math=self.spec.fast_math,
        )

    def _on_vectors(self, array: DeviceArray) -> bool:
        return self.device.address(array) % 16 == 0 and all(stride % 16 == 0 for stride in array.strides[:-1])

    def grid(self, variant: Variant) -> tuple[int, int]:
        """Returns the grid of a pointwise kernel: over rows and units."""
        return variant.block.grid(self.batch, self.spec.hidden_size)

    def empty(self, *shape: int) -> DeviceArray:
        return self.device.empty(shape, self.spec.dtype)

    @property
    def wide(self) -> np.dtype[Any]:
        """The dtype that is computed in: float32 for float16."""
        return np.dtype(np.float64 if self.spec.dtype == np.float64 else np.float32)

    def wide_empty(self, *shape: int) -> DeviceArray:
        return self.device.empty(shape, self.wide)

    def widened(self, array: DeviceArray) -> DeviceArray:
        """Itself, or a copy in what is computed in."""
        return self._converted(array, self.wide)

    def narrowed(self, array: DeviceArray) -> DeviceArray:
        """Itself, or a copy in the layer's dtype."""
        return self._converted(array, self.spec.dtype)

    def _converted(self, array: DeviceArray, dtype: np.dtype[Any]) -> DeviceArray:
        if array.dtype == dtype:
            return array
        found = self.device.empty(array.shape, dtype)
        found[...] = array
        return found

    def zeros(self, *shape: int) -> DeviceArray:
        return self.device.zeros(shape, self.spec.dtype)

    def multiply(self, a: Any, b: Any, out: Any, **options: bool) -> None:
        self.device.multiply(a, b, out, tf32=self.spec.precision == "tf32", **options)


def strides(array: DeviceArray) -> Sequence[int]:
    """Returns the strides of steps and rows, in bytes, as kernels take them."""
    found = array.strides[:2]
    if not all(0 <= stride < LARGEST for stride in found):
        raise ValueError(f"strides: expected below 4 GiB on a GPU, got {found}")
    return tuple(found)
