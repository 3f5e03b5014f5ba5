"""The equations of `gpurnn_kernels/cells.py` and the activations as device functions.

A kernel calls them with numbers, or with vectors, which are tuples of numbers: then lane by lane. The equation itself runs on
`Value`s at compile time, once a lane, where the kernel calls it.
"""

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

from ...cells import Activations, Cells, make_cells
from ..compiler import intrinsic, types
from .number import Scalars, Value


def traced(equation: Callable[..., Any], name: str, results: int = 1) -> Any:
    """Makes a device function of an equation; results: how many numbers it gives, a tuple of them if more than one."""

    def function(typingctx: Any, *arguments: Any) -> Any:
        kind = arguments[0]
        lanes, number = (kind.count, kind.dtype) if isinstance(kind, types.UniTuple) else (0, kind)
        result = types.UniTuple(kind, results) if results > 1 else kind

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            scalars = Scalars(builder, number.bitwidth)
            given = [builder.extract_value(args[0], n) for n in range(len(arguments))]

            def made(pick: Callable[[Any], Any]) -> list[Any]:
                found = equation(*(Value(scalars, pick(value)) for value in given))
                return [value.value for value in (found if results > 1 else [found])]

            if lanes == 0:
                outputs = made(lambda value: value)
            else:
                each = [made(lambda value, i=i: builder.extract_value(value, i)) for i in range(lanes)]  # type: ignore[misc]
                outputs = [context.make_tuple(builder, kind, [one[n] for one in each]) for n in range(results)]
            return context.make_tuple(builder, result, outputs) if results > 1 else outputs[0]

        return result(types.StarArgTuple(arguments)), codegen

    function.__name__ = function.__qualname__ = name
    return intrinsic(function)


def _results(equation: Callable[..., Any]) -> int:
    """Counts the numbers that an equation gives, without its options: it computes with any numbers."""
    needed = [one for one in signature(equation).parameters.values() if one.default is one.empty]
    found = equation(*[1.0] * len(needed))
    return len(found) if isinstance(found, tuple) else 1


_PLAIN = make_cells(Activations(*[lambda number, *_: number] * len(Activations._fields)))
_RESULTS = {name: _results(equation) for name, equation in _PLAIN._asdict().items()}


@cache
def traced_cells(activations: Activations) -> Cells:
    """Makes the equations of a cell device functions, over the given activations."""
    equations = make_cells(activations)._asdict()
    return Cells(*(traced(equation, name, _RESULTS[name]) for name, equation in equations.items()))


@cache
def traced_activations(activations: Activations) -> Activations:
    """Makes activations device functions."""
    return Activations(*(traced(function, name) for name, function in activations._asdict().items()))
