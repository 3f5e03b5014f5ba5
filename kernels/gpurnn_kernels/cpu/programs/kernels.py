"""The kernels that layers of some cells need, for compiling them ahead of their first use."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..cells import CELLS
from ..codegen.target import target
from ..passes.amx_gradients import amx_input_gradients, amx_recurrent_product, amx_weight_gradients
from ..passes.backward import backward
from ..passes.forward import copy_steps, forward
from ..passes.option_gradients import option_gradients
from ..passes.weight_gradients import all_weight_gradients, input_gradients
from ..products.formats import FORMATS
from ..products.microkernel import tiles
from ..products.pack import pack_backward, pack_forward, pack_strips
from ..threads.commands import serve

Kernel = Callable[..., Any]

_OF_ALL_CELLS: tuple[Kernel, ...] = (
    pack_forward,
    *tiles("float").values(),
    *tiles("float", prefetch=True).values(),
    forward,
    copy_steps,
    pack_backward,
    *tiles("float", transposed=True).values(),
    backward,
    all_weight_gradients,
    option_gradients,
    input_gradients,
    serve,
)
_AMX: tuple[Kernel, ...] = (pack_strips, amx_recurrent_product, amx_weight_gradients, amx_input_gradients)  # of float32


def kernels_of(cells: Iterable[str], elements: Sequence[str], precisions: Iterable[str] = ()) -> list[tuple[Kernel, str]]:
    """Lists the kernels of layers of these cells over "float32" or "float64" elements, and in these precisions beside that of
    the elements, each once."""
    steps = [kernel for cell in cells for steps in CELLS[cell].all_steps() for kernel in steps.kernels]
    found = [(kernel, element) for element in elements for kernel in dict.fromkeys((*_OF_ALL_CELLS, *steps))]
    more: list[Any] = list(_AMX) if target().amx and "float32" in elements else []
    for name in precisions:
        more += [*tiles(name).values(), *tiles(name, prefetch=True).values(), FORMATS[name].convert]
    return found + [(kernel, "float32") for kernel in more]
