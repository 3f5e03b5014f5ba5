"""Which kernels an array calls for: its type chooses the backend, imported only then."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from gpurnn_kernels.protocol import Kernels


def is_cupy(array: Any) -> bool:
    """Without importing CuPy."""
    return type(array).__module__.partition(".")[0] == "cupy"


def kernels_for(array: Any) -> "Kernels":
    """The backend module for an array that `checks` has let through."""
    if isinstance(array, np.ndarray):
        from gpurnn_kernels import cpu

        return cast("Kernels", cpu)
    raise NotImplementedError("CuPy arrays: the CUDA backend is not built yet")
