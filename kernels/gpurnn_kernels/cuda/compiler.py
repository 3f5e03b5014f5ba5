"""The compiler of the kernels: Numba's CUDA target, numba-cuda. No other module of this package names it.

Kernels take `cuda`, `types` and `inlined` from here, `intrinsics/` takes `intrinsic`, and `host/cupy_device.py` takes what
loads a kernel. What is emitted inside an intrinsic, `intrinsics/llvm.py` takes from llvmlite.
"""

from typing import TYPE_CHECKING, Any

import numba.cuda.extending
from numba.cuda.cudadrv.driver import driver as driver

if TYPE_CHECKING:
    from .host.device import Kernel

cuda: Any = numba.cuda
types: Any = numba.types
intrinsic: Any = numba.cuda.extending.intrinsic
inlined: Any = cuda.jit(device=True, inline="always")  # a decorator: a device function that leaves no call


def jit_options(kernel: "Kernel", threads_per_multiprocessor: int) -> dict[str, Any]:
    """Returns the options of `cuda.jit`, the same for a GPU and for the tests that have none.

    The assembler ignores a bound of more blocks than a multiprocessor has threads for.
    """
    resident = min(kernel.blocks_per_multiprocessor, threads_per_multiprocessor // kernel.threads)
    return {"launch_bounds": (kernel.threads, resident), "lto": True}


def compiled(kernel: "Kernel", threads_per_multiprocessor: int) -> Any:
    """Compiles a kernel for the current GPU and loads it there."""
    found = cuda.jit(**jit_options(kernel, threads_per_multiprocessor))(kernel.function).compile(kernel.signature)
    found.bind()
    return found
