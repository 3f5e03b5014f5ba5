"""Coupled gates, f = 1 - i (`input_forget`), as an LSTM of the plain equations: since 1 - sigma(a) = sigma(-a), its forget
gate's parameters are minus those of its input gate. Backends need not know of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpurnn_kernels.quantised import Quantised
from gpurnn_kernels.spec import Array

_GATES = {"W_x": 4, "W_h": 4, "b": 4, "peephole": 3}  # by the last part of a parameter's name; f and i are the first two


def _units(name: str, array: Array | Quantised) -> int:
    """Gives H of a parameter with gates, 0 of any other."""
    return len(array) // _GATES.get(name.rpartition(".")[2], len(array) + 1)


def tied(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the parameters that kernels run with: the rows of f are minus those of i, in copies."""
    found = dict(arrays)
    for name, array in arrays.items():
        units = _units(name, array)
        if units and isinstance(array, Quantised):
            values, scales = array.values.copy(), array.scales.copy()
            values[:units], scales[:units] = values[units : 2 * units], -scales[units : 2 * units]
            found[name] = Quantised(values, scales)
        elif units:
            found[name] = array.copy()
            found[name][:units] = -array[units : 2 * units]
    return found


def untied(gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Turns gradients of `tied` parameters into those of the given ones, in place: zero for f, which is not used."""
    with np.errstate(all="ignore"):  # gradients may be infinite
        for name, array in gradients.items():
            units = _units(name, array)
            array[units : 2 * units] -= array[:units]
            array[:units] = 0
    return dict(gradients)
