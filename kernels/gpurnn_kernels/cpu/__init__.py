"""The CPU backend: Numba kernels over NumPy arrays. Exports what `gpurnn_kernels.protocol.Kernels` asks of a backend.

All of it is imported when the first of these names is used, with Numba, on a thread of its own: an exception that interrupts
the caller leaves nothing half imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..aside import aside

_MODULES = {
    "programs.warmup": ("warmup",),
    "programs.call": ("PlainCall", "Stepper"),
    "engine": ("backward", "describe", "forward"),
    "programs.layer": ("prepare",),
    "programs.buffers": ("ARRAYS",),
    "threads.count": ("Threads", "get_num_threads", "set_num_threads"),
    "threads.openmp": ("openmp_of",),
}

if TYPE_CHECKING:
    from .engine import backward as backward
    from .engine import describe as describe
    from .engine import forward as forward
    from .programs.buffers import ARRAYS as ARRAYS
    from .programs.call import PlainCall as PlainCall
    from .programs.call import Stepper as Stepper
    from .programs.layer import prepare as prepare
    from .programs.warmup import warmup as warmup
    from .threads.count import Threads as Threads
    from .threads.count import get_num_threads as get_num_threads
    from .threads.count import set_num_threads as set_num_threads
    from .threads.openmp import openmp_of as openmp_of
else:

    def __getattr__(name: str) -> Any:
        """Called for names that are not there yet; submodules, whose imports ask for them here, are imported by who asks."""
        if not any(name in names for names in _MODULES.values()):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        aside(_import_all)
        return globals()[name]


def _import_all() -> None:
    from numba.core import config

    if getattr(config, "DISABLE_JIT"):  # noqa: B009 - its stub lacks what environment variables set
        raise RuntimeError("NUMBA_DISABLE_JIT: expected 0 or unset, since gpurnn's kernels run as machine code only; got 1")
    for module, names in _MODULES.items():
        found = import_module(f".{module}", __name__)
        globals().update({name: getattr(found, name) for name in names})
