"""All kernels, for compiling them ahead of their first use."""

from ..cells import CELLS
from ..passes.amx_gradients import amx_input_gradients, amx_recurrent_product, amx_weight_gradients
from ..passes.backward import backward
from ..passes.forward import copy_steps, forward
from ..passes.option_gradients import option_gradients
from ..passes.weight_gradients import all_weight_gradients, input_gradients
from ..products.microkernel import TILES, TILES_PREFETCH, TILES_TRANSPOSED
from ..products.pack import pack_backward, pack_forward, pack_strips
from ..threads.commands import serve

_STEPS = [kernel for cell in CELLS.values() for steps in cell.all_steps() for kernel in steps.kernels]

# every one, each once
KERNELS = tuple(
    dict.fromkeys(
        [
            pack_forward,
            *TILES.values(),
            *TILES_PREFETCH.values(),
            forward,
            copy_steps,
            pack_backward,
            *TILES_TRANSPOSED.values(),
            backward,
            all_weight_gradients,
            option_gradients,
            input_gradients,
            *_STEPS,
            serve,
        ]
    )
)

# those of float32 besides, where the target has AMX
AMX_KERNELS = (pack_strips, amx_recurrent_product, amx_weight_gradients, amx_input_gradients)
