"""`python -m bench cuda`: the place of the CUDA backend's bench. Where no GPU is, it says so and that is no failure."""

from __future__ import annotations

from rich.console import Console


def why_not() -> str | None:
    """Why nothing can be measured on a GPU here; None when one is there."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error)
    return None if count else "CUDA reports no device"


def run(console: Console) -> int:
    """Exit status: 0 without a GPU."""
    reason = why_not()
    if reason is not None:
        console.print(f"no GPU here ({reason}): nothing to measure", highlight=False)
        return 0
    console.print("a GPU is here, but the CUDA bench is not built yet", highlight=False)
    return 1
