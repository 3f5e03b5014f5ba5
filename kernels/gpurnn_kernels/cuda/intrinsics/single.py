"""Sigma and tanh in float32: as few instructions as 4 ulp allow, by the bounds that NVIDIA documents (PTX ISA 9.1, 9.7.3).

    sigma(x) = 1 / (1 + e**-x), the exponential a polynomial
    tanh(x)  = x + x**3 P(x**2)               where |x| < 0.55
             = (1 - E) / (1 + E), E = e**-2|x|  elsewhere

`ex2.approx` is at most 2 ulp from the rounded result. That is enough for tanh: beyond 0.55, 2.5 ulp of E <= 1/3 become 1.4
of tanh, and about as much comes from rounding. It is not for sigma(x) where x << 0: an error in the last place of a number
just above a power of 2 is worth two in its inverse's, so 2.5 ulp of e**-x could be 5 of sigma.

`rcp.approx` is at most 1 ulp off. A quotient is corrected by its remainder: limits are exact, no product exceeds 1. NaN comes
through, and sigma below the smallest normal number is zero.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from ...activations import as_quotients, exponential, reduced
from .number import Value

_SIGMA_ENDS = 87.5  # e**87.5 has no normal inverse, and twice it is finite
_TANH_BENDS = 0.55


def _quotient(numerator: Value, d: Value) -> Value:
    v = d.of
    inverse = v.instruction("rcp.approx.ftz.f32", d)
    q = numerator * inverse
    return v.fma(inverse, v.fma(v.negative(d), q, numerator), q)


def _minus_exponential(x: Value) -> tuple[Value, Value]:
    """e**-x, as what multiplies a power of two"""
    v = x.of
    clamped = v.minimum(v.maximum(x, v.constant(-_SIGMA_ENDS)), v.constant(_SIGMA_ENDS))
    r, power = reduced(clamped, -1.0)
    return exponential(r, -1.0), power


def _tanh_parts(x: Value) -> tuple[Value, Value]:
    """-> numerator, denominator in [1, 2]."""
    v = x.of
    one, magnitude = v.constant(1.0), v.absolute(x)
    e = v.instruction("ex2.approx.ftz.f32", magnitude * v.constant(-2 / math.log(2)))
    square = x * x
    highest, *others = _tanh_polynomial()
    p = v.constant(highest)
    for coefficient in others:
        p = v.fma(p, square, v.constant(coefficient))
    small = v.builder.fcmp_ordered("<", magnitude.value, v.constant(_TANH_BENDS).value)
    numerator = v.select(small, v.fma(p * square, x, x), v.copysign(one - e, x))
    return numerator, v.select(small, one, one + e)


@cache
def _tanh_polynomial() -> tuple[float, ...]:
    """Coefficients, highest power first, of P in tanh(x) = x + x**3 P(x**2), which it meets at Chebyshev's nodes."""

    def exact(square: Any) -> Any:
        x = np.sqrt(square)
        return (np.tanh(x) / x - 1) / square

    nodes = np.polynomial.chebyshev.Chebyshev.interpolate(exact, 3, domain=[0, _TANH_BENDS**2])
    single = nodes.convert(kind=np.polynomial.Polynomial).coef[::-1].astype(np.float32)
    return tuple(float(coefficient) for coefficient in single)


ACTIVATIONS = as_quotients(_quotient, _minus_exponential, _tanh_parts)
