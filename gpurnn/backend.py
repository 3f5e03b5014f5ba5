"""The memory that a call's arrays live in, and the kernels for it: an array's type chooses the backend, imported only then."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpurnn_kernels import cpu  # light: Numba and the kernels come with the first use of one of its names
from gpurnn_kernels.cached_property import cached_property
from gpurnn_kernels.spec import Array

if TYPE_CHECKING:
    from gpurnn_kernels.protocol import Kernels


def is_cupy(array: Any) -> bool:
    """Tells whether an array is CuPy's, without importing CuPy."""
    return type(array).__module__.partition(".")[0] == "cupy"


def on_device(array: Any) -> bool:
    """Tells whether the CUDA backend takes an array: CuPy's, or one that brings the device it lives on as `home`."""
    return type(array) is not np.ndarray and (is_cupy(array) or getattr(array, "home", None) is not None)


_EVERYWHERE = nullcontext()


class Place:
    """The memory of the host (`device` is None), or of one device, and the kernels that compute there."""

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def __eq__(self, other: object) -> bool:
        # by the device alone: after a reload of the library two classes of this name may meet
        return hasattr(other, "device") and other.device is self.device

    def __hash__(self) -> int:
        return hash(self.device)

    def __str__(self) -> str:
        return "a NumPy array" if self.device is None else f"an array on {self.device.limits.name}"

    @cached_property
    def kernels(self) -> "Kernels":
        """The backend for this memory."""
        if self.device is None:
            return cast("Kernels", cpu)
        from gpurnn_kernels import cuda

        return cast("Kernels", cuda)

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Gives an array to be filled."""
        return np.empty(shape, dtype) if self.device is None else self.device.empty(shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Gives an array of zeros."""
        return np.zeros(shape, dtype) if self.device is None else self.device.zeros(shape, dtype)

    def lease(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Gives an array to be filled whose memory comes back for others when nobody has the array any more."""
        if self.device is not None:
            return self.empty(shape, dtype)  # from CuPy's pool
        return cpu.ARRAYS.lease(shape, dtype)

    def contiguous(self, array: Array) -> Array:
        """Gives the array itself if it has no gaps, else a copy that has none."""
        if array.flags.c_contiguous:
            return array
        with self.current():
            return array.copy()

    def current(self) -> AbstractContextManager[Any]:
        """Makes the device CUDA's current one inside; every public call enters it, whichever device its thread was on."""
        return _EVERYWHERE if self.device is None else self.device.current()


HOST = Place()


def place_of(array: Any) -> Place:
    """Gives the place of an array that `checks` has let through."""
    if not on_device(array):
        return HOST
    from gpurnn_kernels.cuda.host.devices import device_of

    return Place(device_of(array))
