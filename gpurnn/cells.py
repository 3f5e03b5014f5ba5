"""Cells as functions of arrays, one step a call, for people who work on kernels."""

from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array, CellName, Spec

from . import checks
from .backend import place_of


def lstm_cell(x_t: Array, h: Array, c: Array, W_x: Array, W_h: Array, b: Array) -> tuple[Array, Array]:
    """Runs one step of an LSTM; the weights are packed anew at each call.

        h, c = gpurnn.lstm_cell(x_t, h, c, W_x, W_h, b)

    Args:
        x_t: (B, I), float32 or float64, as all others.
        h, c: (B, H), the state before the step.
        W_x, W_h, b: (4*H, I), (4*H, H) and (4*H,), gate order f, i, o, g.

    Returns h and c, (B, H). Raises ValueError for wrong shapes, TypeError for wrong types and dtypes.
    """
    h_new, c_new = _step("lstm", x_t, {"h": h, "c": c}, {"W_x": W_x, "W_h": W_h, "b": b})
    return h_new, c_new


def gru_cell(x_t: Array, h: Array, W_x: Array, W_h: Array, b: Array, b_hn: Array | None = None) -> Array:
    """Runs one step of a GRU, reset-after when b_hn is given; the weights are packed anew at each call.

        h = gpurnn.gru_cell(x_t, h, W_x, W_h, b)

    Args:
        x_t: (B, I), float32 or float64, as all others.
        h: (B, H), the state before the step.
        W_x, W_h, b: (3*H, I), (3*H, H) and (3*H,), gate order z, r, n.
        b_hn: (H,), the bias inside the reset gate; None for the reset-before form.

    Returns h, (B, H). Raises ValueError for wrong shapes, TypeError for wrong types and dtypes.
    """
    parameters = {"W_x": W_x, "W_h": W_h, "b": b}
    if b_hn is None:
        return _step("gru_before", x_t, {"h": h}, parameters)[0]
    return _step("gru_after", x_t, {"h": h}, parameters | {"b_hn": b_hn})[0]


def _step(cell: CellName, x_t: Any, state: dict[str, Any], arrays: dict[str, Any]) -> list[Array]:
    dtype = np.dtype(np.float64 if getattr(x_t, "dtype", None) == np.float64 else np.float32)
    x = checks.array("x_t", x_t, dtype)
    place = place_of(x)
    checks.shape("x_t", x, [None, None], "B, I")
    batch, inputs = x.shape
    first = checks.array("h", state["h"], dtype, place)
    checks.shape("h", first, [batch, None], "B, H")
    units = checks.size("H", first.shape[1])
    checks.size("I", inputs)
    spec = Spec(cell, inputs, units, dtype)
    rows = spec.gates * units
    checked = {}
    sizes = {"W_x": (rows, inputs), "W_h": (rows, units), "b": (rows,), "b_hn": (units,)}
    for name, value in arrays.items():
        checked[name] = checks.array(name, value, dtype, place)
        if checked[name].shape != sizes[name]:
            raise ValueError(f"{name}: expected shape {sizes[name]}, got {checked[name].shape}")
    initial = []
    for name, value in state.items():
        one = checks.array(name, value, dtype, place)
        checks.shape(name, one, [batch, units], "B, H")
        initial.append(place.contiguous(one)[None])
    kernels = place.kernels
    with place.current():
        final = [place.empty(one.shape, dtype) for one in initial]
        y = place.empty((1, batch, units), dtype)
        kernels.forward(kernels.prepare([spec], [checked]), x[None], initial, None, y, final)
    return [one[0] for one in final]
