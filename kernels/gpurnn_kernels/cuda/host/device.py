"""The seam between the CUDA backend and what executes it: what allocates, multiplies and launches.

On a GPU that is CuPy and numba-cuda (`cupy_device.py`); tests without one put NumPy and a PTX interpreter here, and the
very PTX that numba-cuda compiles. Nothing else in this package knows CuPy.

Device arrays are what the caller handed in (`cupy.ndarray`): shape, strides in bytes, dtype, slicing, `.copy()`. Kernels
take them as addresses, so a launch converts nothing but integers.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...spec import Array

DeviceArray = Any


@dataclass(frozen=True)
class Limits:
    """Tells what a device can hold, as CUDA reports it."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    registers_per_multiprocessor: int
    shared_per_multiprocessor: int  # bytes
    shared_per_block: int  # bytes a block may opt in to


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function for `cuda.jit`. A factory makes each once: they compare by identity.

    signature: the compiler's types of the arguments: a record of most of them, then what varies from launch to launch.
    threads: of a block, the launch bounds; cooperative: all blocks must be resident at once, since they wait for each other.
    """

    name: str
    function: Any
    signature: tuple[Any, ...]
    threads: int
    blocks_per_multiprocessor: int = 1
    cooperative: bool = False


LARGEST_GRID = (2**31 - 1, 65_535, 65_535)  # blocks along x, y, z: CUDA's, on every device


def check_grid(kernel: Kernel, grid: Sequence[int]) -> None:
    """Raises ValueError for a grid that no device launches. What grows with the batch or the steps lies along x."""
    if any(blocks > most for blocks, most in zip(grid, LARGEST_GRID, strict=False)):
        raise ValueError(f"{kernel.name}: expected a grid of at most {LARGEST_GRID} blocks, got {tuple(grid)}")


class Launch(Protocol):
    """A kernel with its grid and its first arguments, ready to go on the current stream."""

    def __call__(self, *rest: int | float) -> None: ...


class Device(Protocol):
    """Allocations and `publish` go to the device itself; products, launches and an array's own operations to the current
    one: who calls them is inside `current`."""

    @property
    def limits(self) -> Limits: ...

    def current(self) -> AbstractContextManager[Any]:
        """Inside, it is the device that CUDA's calls mean, in a thread that has not used CUDA before as in any other."""

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray: ...

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray: ...

    def upload(self, array: Array) -> DeviceArray: ...

    def publish(self, *arrays: Array | DeviceArray) -> list[DeviceArray]:
        """Contiguous copies that nobody writes to and calls on every stream may read: they are complete when they are handed
        over, and their memory becomes another's only when nothing on the device reads it any more. Waits for the device, once.

        Of the host's arrays, or the device's own, in the order of the current stream.
        """

    def address(self, array: DeviceArray) -> int:
        """Returns the address of an array's first byte."""

    def multiply(
        self,
        a: DeviceArray,  # (M, K), or (K, M) with transpose_a
        b: DeviceArray,  # (K, N), or (N, K) with transpose_b
        out: DeviceArray,  # (M, N)
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
        tf32: bool = False,
    ) -> None:
        """out = a b, or out += a b: one launch. Units side by side, any row stride; float16 a and b may have a float32 out."""

    def launcher(self, kernel: Kernel, grid: Sequence[int], *first: Any, shared: int = 0) -> Launch:
        """Binds a kernel's first arguments, as a rule its record; what varies comes when the launch is called.

        shared: bytes of dynamic shared memory.
        Raises TypeError for another kernel's record, ValueError for a grid that no device launches, RuntimeError for a
        cooperative one larger than what this device holds resident.
        """

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what `work` launches, which must not allocate nor multiply -> what launches it again, and owns `work`.

        What `work` raises comes through, and nothing stays recording.
        """

    def resident_blocks(self, kernel: Kernel, shared: int) -> int:
        """How many blocks one multiprocessor holds, by the compiled kernel's registers and shared memory."""
