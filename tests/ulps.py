"""Errors of sigma and tanh in units in the last place."""

import numpy as np
from helpers import Floats

ULPS = 4.0  # the promise


def exact(name: str, x: Floats, b: Floats | None = None) -> Floats:
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(under="ignore"):
        if name == "tanh":
            return np.tanh(wide)
        e = np.exp(-np.abs(wide))
        found = np.where(wide >= 0, 1, e) / (1 + e)
        return found if b is None else found * exact("tanh", b)


def error_in_ulps(found: Floats, wanted: Floats) -> float:
    """The largest; where the result is below the normal numbers, zero is as good as the result."""
    tiny = np.finfo(found.dtype).tiny * wanted.dtype.type(1 + 8 * np.finfo(found.dtype).eps)
    with np.errstate(under="ignore"):
        unit = np.spacing(np.abs(wanted).astype(found.dtype)).astype(wanted.dtype)
        error = np.abs(found.astype(wanted.dtype) - wanted) / unit
    flushed = (np.abs(wanted) <= tiny) & (found == 0)
    return float(np.max(np.where(flushed, 0, error)))
