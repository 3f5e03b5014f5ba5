"""Which kernel runs a geometry."""

from ..device import Kernel
from .forward import forward_kernel
from .geometry import Geometry


def kernel_of(g: Geometry) -> Kernel:
    return forward_kernel(g)
