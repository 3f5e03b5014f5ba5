"""Which kernel runs a geometry."""

from ..device import Kernel
from .forward import forward_kernel
from .forward_before import forward_before_kernel
from .geometry import Geometry


def kernel_of(g: Geometry) -> Kernel:
    return forward_before_kernel(g) if g.cell == "gru_before" else forward_kernel(g)
