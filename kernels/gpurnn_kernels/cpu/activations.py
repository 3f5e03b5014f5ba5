"""Sigma and tanh on SIMD vectors, each a quotient, so that a product of the two takes one division.

    sigma(x) = 1 / (1 + e**-x)                  where e**-x overflows, 1 / inf = 0
    tanh(|x|) = -E / (2 + E), E = expm1(-2|x|)   no relative accuracy is lost near 0

Limits are exact and NaN comes through. Results are at most 4 ulp off in float32 (tests/test_activations.py measures it);
those below the smallest normal number are zero, as kernels run with denormals flushed.

The exponential: x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 split in two so that n * LN2_HIGH is exact with or without fma
(Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6); expm1(r) = r P(r); 2**n by shifting n,
which the rounding by a magic number left in the low bits, into the exponent.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from ..cells import Activations, Clip
from .vector import Vector, Vectors


class _Format(NamedTuple):
    """What the exponential needs to know of an element type."""

    magic: float  # 1.5 * 2**mantissa bits + exponent bias
    ln2_high: float
    ln2_low: float
    exp_most: float  # e**exp_most is infinite by 2**n alone
    exp_least: float  # 2**n is still normal, and 1 + e**exp_least is 1
    tanh_one: float  # tanh rounds to 1 from here on


_FLOAT32 = _Format(1.5 * 2**23 + 127, 0.693359375, -2.12194440e-4, 88.7, -87.0, 10.0)
_FLOAT64 = _Format(1.5 * 2**52 + 1023, 6.93145751953125e-1, 1.42860682030941723212e-6, 709.7, -708.0, 20.0)


def _format(v: Vectors) -> _Format:
    return _FLOAT32 if v.bits == 32 else _FLOAT64


@cache
def _expm1_over_r(bits: int) -> tuple[float, ...]:
    """Coefficients, highest power first, of P in expm1(r) = r P(r), |r| <= ln 2 / 2: in float32 the polynomial that meets it
    at the Chebyshev nodes (an even number of them: none is 0); in float64, where finding those takes more bits, Taylor's."""
    if bits == 64:
        return tuple(1 / math.factorial(power + 1) for power in range(12, -1, -1))
    edge = np.log(2) / 2
    nodes = np.polynomial.chebyshev.Chebyshev.interpolate(lambda r: np.expm1(r) / r, 5, domain=[-edge, edge])
    return tuple(nodes.convert(kind=np.polynomial.Polynomial).coef[::-1].tolist())


def _polynomial(v: Vectors, r: Vector) -> Vector:
    """P(r), by Horner's rule."""
    highest, *others = _expm1_over_r(v.bits)
    p = v.constant(highest)
    for coefficient in others:
        p = v.fma(p, r, v.constant(coefficient))
    return p


def _reduce(v: Vectors, x: Vector) -> tuple[Vector, Vector]:
    """-> r and 2**n, where x = n ln 2 + r."""
    k = _format(v)
    biased = v.fma(x, v.constant(1 / np.log(2)), v.constant(k.magic))
    n = biased - v.constant(k.magic)
    r = v.fma(n, v.constant(-k.ln2_low), v.fma(n, v.constant(-k.ln2_high), x))
    return r, v.exponent(biased)


def _sigmoid_denominator(x: Vector) -> Vector:
    """1 + e**-x, in [1, inf]."""
    v = x.of
    k = _format(v)
    r, power = _reduce(v, v.minimum(v.maximum(v.negative(x), v.constant(k.exp_least)), v.constant(k.exp_most)))
    one = v.constant(1.0)
    return v.fma(v.fma(_polynomial(v, r), r, one), power, one)


def _tanh_parts(x: Vector) -> tuple[Vector, Vector]:
    """-> numerator in [-1, 1], denominator in [1, 2]."""
    v = x.of
    k = _format(v)
    magnitude = v.minimum(v.absolute(x), v.constant(k.tanh_one))
    r, power = _reduce(v, v.constant(-2.0) * magnitude)
    p = _polynomial(v, r) * r
    e = v.fma(p, power, power - v.constant(1.0))
    return v.copysign(e, x), v.constant(2.0) + e


def sigmoid(x: Vector) -> Vector:
    return x.of.constant(1.0) / _sigmoid_denominator(x)


def tanh(x: Vector) -> Vector:
    numerator, denominator = _tanh_parts(x)
    return numerator / denominator


def sigmoid_tanh(a: Vector, b: Vector) -> Vector:
    """sigma(a) * tanh(b) with one division."""
    numerator, denominator = _tanh_parts(b)
    return numerator / (_sigmoid_denominator(a) * denominator)


ACTIVATIONS = Activations(sigmoid, tanh, sigmoid_tanh)
CLIP = Clip(lambda a, limit: a.of.clamp(a, limit), lambda gradient, a, limit: a.of.inside(gradient, a, limit))
