"""The self-check of the converters: a converted layer computes what its source computes, where that can be run.

Large weights make a recurrence chaotic: two ways of rounding part within a few steps. Conversion is linear in the weights, so
that both sides are compared with their weights scaled down to where rounding stays rounding.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from ..layers.make import Layer

log = logging.getLogger("gpurnn")

STEPS, ROWS = 4, 3
LARGEST = 2.0  # sum of magnitudes in a row of weights

# x (T, B, I) and the state's arrays (L*D, B, H) -> y (T, B, D*H) and the state after the last step
Run = Callable[[Array, list[Array]], tuple[Array, list[Array]]]


def scale(layer: Layer) -> float:
    """Gives the power of two by which the source's weights are to be multiplied for `agree`."""
    rows = _row_sums(layer)
    return 1.0 if not rows > LARGEST else float(2.0 ** np.floor(np.log2(LARGEST / rows)))


def agree(layer: Layer, run: Run, source: str, precision: Any = None) -> None:
    """Runs both on the same random numbers, the layer without a precision of its own. Raises ValueError if they differ by
    more than rounding explains.

    run: the source, its weights times `scale(layer)`.
    precision: the dtype that the source computes in, where that is not the layer's.
    """
    factor = layer.dtype.type(scale(layer))
    plain = layer.configuration() | {"precision": None}
    layer = layer.with_params(plain, {name: factor * array for name, array in layer.params.items()})
    generator = np.random.default_rng(0)
    x = generator.standard_normal((STEPS, ROWS, layer.input_size)).astype(layer.dtype)
    shape = (layer.num_layers * layer.directions, ROWS)
    widths = [getattr(layer, "proj_size", 0) or layer.hidden_size, layer.hidden_size][: len(layer.states)]
    state = [generator.uniform(-1, 1, (*shape, width)).astype(layer.dtype) for width in widths]
    given: Any = (state[0], state[1]) if len(state) == 2 else state[0]
    y, final = layer(x.swapaxes(0, 1) if layer.batch_first else x, given)
    if layer.batch_first:
        y = y.swapaxes(0, 1)
    wanted_y, wanted_final = run(x, state)
    finals = final if len(state) == 2 else (final,)
    allowed = tolerance(layer, precision or layer.dtype)
    for name, got, wanted in zip(("y", *layer.states), (y, *finals), (wanted_y, *wanted_final), strict=True):
        _compare(f"{source}: {name}", got, wanted, allowed)


def tolerance(layer: Layer, precision: Any) -> float:
    """Gives the distance at which two ways of rounding may lie: more with large weights, whose sums round more coarsely."""
    return float(np.finfo(precision).eps) * 32 * (4 + _row_sums(layer))


def _row_sums(layer: Layer) -> float:
    """Gives the largest sum of magnitudes in a row of any matrix."""
    return max(float(np.abs(array).sum(axis=-1).max()) for name, array in layer.params.items() if "W_" in name)


def _compare(what: str, got: Array, wanted: Array, allowed: float) -> None:
    if got.shape != wanted.shape:
        raise ValueError(f"{what}: the converted layer gives shape {got.shape}, the source {wanted.shape}")
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    difference = float(np.abs(got.astype(np.float64) - wanted).max(initial=0))
    if not difference <= allowed * scale:
        raise ValueError(
            f"{what}: the converted layer differs from the source by {difference:.2g}, expected at most {allowed * scale:.2g}"
        )
    log.debug("%s: converted, differs from the source by %.2g", what, difference)


def dropped(source: str, rate: float) -> None:
    """Logs that a source has dropout, which is the identity at inference."""
    if rate:
        log.info("%s: dropout %g is dropped: it is the identity at inference", source, rate)
