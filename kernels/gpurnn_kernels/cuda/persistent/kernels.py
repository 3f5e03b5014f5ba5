"""Which kernel runs a geometry."""

from ..host.device import Kernel
from .backward import backward_kernel
from .backward_reset_before import backward_before_kernel
from .forward import forward_kernel
from .forward_reset_before import forward_before_kernel
from .geometry import Geometry
from .geometry_backward import BackwardGeometry


def kernel_of(g: Geometry | BackwardGeometry) -> Kernel:
    if isinstance(g, Geometry):
        return forward_before_kernel(g) if g.cell == "gru_before" else forward_kernel(g)
    return backward_before_kernel(g) if g.cell == "gru_before" else backward_kernel(g)
