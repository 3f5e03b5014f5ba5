"""Sigma and tanh on SIMD vectors, over a vector division. Results are at most 4 ulp off in float32 (tests/test_activations.py
measures it); those below the smallest normal number are zero, as kernels run with denormals flushed.

SCALED take pre-activations of weights that were scaled when they were packed, so that powers of two remain, whose argument
falls into n + r without a rounding: a quarter fewer operations.

    sigma(x) = 1 / (1 + 2**t), t = -x / ln 2        tanh(|x|) = -E / (2 + E), E = 2**-|t| - 1, t = 2 x / ln 2
"""

import math

from ..activations import FORMATS, as_quotients, exponential, make_activations, polynomial
from ..cells import Clip, Number
from .vector import once

SIGMOID_SCALE = -1 / math.log(2)
TANH_SCALE = 2 / math.log(2)
_LOG = math.log(2)
_EXPONENTS = {32: (-126.0, 128.0), 64: (-1022.0, 1024.0)}  # 2**n is normal, and from the last one on infinite


def _quotient(a: Number, b: Number) -> Number:
    return a / b


def _reduced(t: Number) -> tuple[Number, Number]:
    """-> r and 2**n, where t = n + r and |r| <= 1/2."""
    v = t.of
    magic = v.constant(FORMATS[v.bits].magic)
    biased = t + magic
    return t - (biased - magic), v.exponent(biased)


@once
def _sigmoid_denominator(t: Number) -> Number:
    """1 + 2**t"""
    v = t.of
    least, most = _EXPONENTS[v.bits]
    r, power = _reduced(v.minimum(v.maximum(t, v.constant(least)), v.constant(most)))
    return v.fma(exponential(r, _LOG), power, v.constant(1.0))


@once
def _tanh_parts(t: Number) -> tuple[Number, Number]:
    """-> numerator in [-1, 1], denominator in [1, 2]."""
    v = t.of
    least = v.constant(-TANH_SCALE * FORMATS[v.bits].tanh_one)
    r, power = _reduced(v.maximum(v.copysign(t, v.constant(-1.0)), least))
    e = v.fma(polynomial(r, _LOG) * r, power, power - v.constant(1.0))
    return v.copysign(e, t), v.constant(2.0) + e


# from 88.7 on e**x is infinite by 2**n alone, and 1 / inf = 0
ACTIVATIONS = make_activations(_quotient, {32: 88.7, 64: 709.7})
SCALED = as_quotients(_quotient, _sigmoid_denominator, _tanh_parts)._replace(argument=lambda x: x * x.of.constant(TANH_SCALE))
CLIP = Clip(lambda a, limit: a.of.clamp(a, limit), lambda gradient, a, limit: a.of.inside(gradient, a, limit))
