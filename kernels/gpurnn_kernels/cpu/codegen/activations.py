"""Sigma and tanh on SIMD vectors, over a vector division.

Results are at most 4 ulp off in float32, as tests/cpu/test_activations.py measures. Results below the smallest normal number
are zero, since kernels run with denormals flushed.
"""

from ...activations import make_activations
from ...cells import Clip, Number
from .vector import once


def _quotient(a: Number, b: Number) -> Number:
    return a / b


# from 88.7 on e**x is infinite by 2**n alone, and 1 / inf = 0
ACTIVATIONS = make_activations(_quotient, {32: 88.7, 64: 709.7}, once)
CLIP = Clip(lambda a, limit: a.of.clamp(a, limit), lambda gradient, a, limit: a.of.inside(gradient, a, limit))
