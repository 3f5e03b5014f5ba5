"""How a kernel is compiled: the same way for a GPU and for the tests that have none."""

from typing import Any

from .device import Kernel


def jit_options(kernel: Kernel) -> dict[str, Any]:
    """Of `numba.cuda.jit`."""
    return {"launch_bounds": (kernel.threads, kernel.blocks_per_multiprocessor), "lto": True}
