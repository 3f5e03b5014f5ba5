"""How a kernel is compiled: the same way for a GPU and for the tests that have none."""

from typing import Any

from .host.device import Kernel


def jit_options(kernel: Kernel, threads_per_multiprocessor: int) -> dict[str, Any]:
    """Of `numba.cuda.jit`. The assembler ignores a bound of more blocks than a multiprocessor has threads for."""
    resident = min(kernel.blocks_per_multiprocessor, threads_per_multiprocessor // kernel.threads)
    return {"launch_bounds": (kernel.threads, resident), "lto": True}
