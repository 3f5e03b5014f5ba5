"""The cell equations inside a persistent kernel: each an intrinsic that takes a tuple of float32 and gives one."""

from collections.abc import Callable
from functools import cache
from typing import Any

from ...cells import Cells, make_cells
from ..compiler import intrinsic, types
from .activations import ACCURATE, FAST
from .number import Scalars, Value

RESULTS = {
    "lstm_cell": 2,
    "lstm_gates": 4,
    "lstm_cell_grad": 5,
    "gru_reset": 1,
    "gru_candidate": 1,
    "gru_update": 1,
    "gru_update_grad": 3,
    "gru_reset_grad": 2,
    "gru_candidate_grad": 2,
}


def _traced(function: Callable[..., Any], results: int) -> Any:
    """Runs `function` on Values at compile time, where the kernel calls it."""

    @intrinsic
    def call(typingctx, numbers):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            scalars = Scalars(builder, 32)
            values = function(*(Value(scalars, builder.extract_value(args[0], i)) for i in range(len(numbers))))
            values = [values] if isinstance(values, Value) else values
            return context.make_tuple(builder, sig.return_type, [value.value for value in values])

        return types.UniTuple(types.float32, results)(numbers), codegen

    return call


@cache
def traced_cells(fast_math: bool) -> Cells:
    """The names of cells.make_cells, one tuple in and one tuple out."""
    cells = make_cells(FAST if fast_math else ACCURATE)
    return Cells(*(_traced(equation, RESULTS[name]) for name, equation in cells._asdict().items()))


@cache
def traced_gates(fast_math: bool) -> Any:
    """z, r, n of a GRU, saved for the backward pass."""
    activations = FAST if fast_math else ACCURATE
    return _traced(lambda z_, r_, n_: (activations.sigmoid(z_), activations.sigmoid(r_), activations.tanh(n_)), 3)


@cache
def traced_activations(fast_math: bool) -> tuple[Any, Any]:
    """sigma, tanh."""
    activations = FAST if fast_math else ACCURATE
    return _traced(activations.sigmoid, 1), _traced(activations.tanh, 1)
