"""All opcodes: importing this package registers them."""

from . import asynchronous, atomics, conversions, floats, integers, loads, matrix, warps
from .semantics import DTYPES, Semantics, semantics

__all__ = ["DTYPES", "Semantics", "semantics"]
_REGISTERED = (asynchronous, atomics, conversions, floats, integers, loads, matrix, warps)
