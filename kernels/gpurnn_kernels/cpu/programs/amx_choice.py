"""Which products of a layer's backward pass AMX makes. No choice depends on threads, and so the gradients' bits do not."""

from typing import NamedTuple

import numpy as np

from ...spec import Spec
from ..cells import cell_of
from ..codegen.target import target

# multiply-adds of the large products, from which on they are faster as part of a training step
LEAST_WORK = 20_000_000
# of a step: with fewer rows it is reading W_h that takes the time, and its strips are half as large again; with fewer units,
# splitting the gates' gradients
LEAST_ROWS, LEAST_UNITS = 16, 96


class Products(NamedTuple):
    """Of the backward pass: what AMX makes, rather than multiply-adds of vectors."""

    large: bool  # dW and dx, over all steps
    recurrent: bool  # dh_prev


def choose(spec: Spec, steps: int, batch: int) -> Products:
    if not target().amx or spec.dtype != np.float32:
        return Products(False, False)
    share = steps * batch * spec.gates * spec.hidden_size * (2 * spec.input_size + spec.output_size)
    large, many = share >= LEAST_WORK, batch >= LEAST_ROWS and spec.hidden_size >= LEAST_UNITS
    return Products(large, large and many and (cell_of(spec).options_on_amx or not spec.has_options))
