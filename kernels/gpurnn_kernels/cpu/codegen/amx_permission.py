"""This process's permission to use AMX. Linux gives a process the tile registers when asked, but not in every container."""

import ctypes
import os
import platform
import sys

_ARCH_PRCTL = 158  # of system calls on x86-64
_REQUEST, _TILES = 0x1023, 18  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA


def wanted() -> bool:
    """Tells whether GPURNN_AMX allows AMX: 1, the default, or 0. Raises ValueError for another value."""
    value = os.environ.get("GPURNN_AMX", "1")
    if value.strip() not in ("0", "1"):
        raise ValueError(f"GPURNN_AMX: expected 0 or 1, got {value!r}")
    return value.strip() == "1"


def granted() -> bool:
    """Asks Linux for AMX, for all threads of the process and of its forks. Tells whether it was granted."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    failed: int = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILES)
    return failed == 0
