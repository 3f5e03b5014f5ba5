"""LLVM ends the process where it gets no address space. This module checks for it first."""

import os

NEEDED = 48 << 20  # bytes: the largest kernel took 32 MiB, and its thread takes 8


def require_address_space() -> None:
    """Raises MemoryError if a limit (`ulimit -v`) leaves too little to compile or load a kernel."""
    left = _left()
    if left is not None and left < NEEDED:
        raise MemoryError(
            f"compiling or loading kernels: expected at least {NEEDED >> 20} MiB of address space, "
            f"got {left >> 20} MiB left of RLIMIT_AS (`ulimit -v`)"
        )


def _left() -> int | None:
    """Gives the bytes of address space that this process may still take; None where that is not limited or not known."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/statm") as file:
            return limit - int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError):
        return None
