"""`warmup` compiles every kernel, or loads it from the cache, ahead of its first use."""

from collections.abc import Callable

from ..codegen.compile import kernel_address
from ..codegen.target import target
from .kernels import AMX_KERNELS, KERNELS


def warmup(report: Callable[[int, int, str], None] = lambda done, of, name: None) -> None:
    """Makes every kernel ready for float32 and float64; calls report(done, of, name) before each and at the end."""
    wanted = [(function, element) for element in ("float32", "float64") for function in KERNELS]
    if target().amx:
        wanted += [(function, "float32") for function in AMX_KERNELS]
    for done, (function, element) in enumerate(wanted):
        report(done, len(wanted), f"{function.__qualname__} {element}")
        kernel_address(function, element)
    report(len(wanted), len(wanted), "")
