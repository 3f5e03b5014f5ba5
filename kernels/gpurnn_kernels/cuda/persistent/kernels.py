"""The choice of the kernel that runs a geometry."""

from functools import cache

from ..host.device import Kernel
from ..records import record_type
from .arguments import BackwardArguments, ForwardArguments
from .backward import backward_kernel
from .backward_reset_before import reset_before_backward_kernel
from .forward import forward_kernel
from .forward_reset_before import reset_before_forward_kernel
from .geometry_backward import BackwardGeometry
from .geometry_forward import ForwardGeometry


@cache
def kernel_of(g: ForwardGeometry | BackwardGeometry) -> Kernel:
    if isinstance(g, ForwardGeometry):
        function = reset_before_forward_kernel(g) if g.resets_before else forward_kernel(g)
        name, record = f"persistent_{g.cell}_forward", record_type(ForwardArguments)
    else:
        function = reset_before_backward_kernel(g) if g.resets_before else backward_kernel(g)
        name, record = f"persistent_{g.cell}_backward", record_type(BackwardArguments)
    return Kernel(name, function, (record,), g.threads, 1, cooperative=not g.alone)
