"""Sigma and tanh on SIMD vectors, from one exponential of a number that is never positive.

With E = e**-|x|: sigma(x) is 1 / (1 + E) for x >= 0 and E / (1 + E) for x < 0, so that no relative accuracy is lost far on
the negative side; tanh(|x|) is -expm1(-2|x|) / (2 + expm1(-2|x|)). Nothing overflows, limits are exact, NaN comes through.
Errors stay below 4 ulp in float32 (tests/test_activations.py measures them).

The exponential: x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 split in two so that n * LN2_HIGH is exact with or without fma
(Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6); expm1(r) = r P(r), P interpolated at
Chebyshev nodes; 2**n by shifting n, which the rounding by a magic number left in the low bits, into the exponent.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from ..cells import Activations
from .vector import Vector, Vectors


class _Exp(NamedTuple):
    """What the exponential needs to know of an element type."""

    degree: int  # of r P(r)
    magic: float  # 1.5 * 2**mantissa bits + exponent bias
    ln2_high: float
    ln2_low: float
    zero_below: float  # e**-zero_below rounds to zero
    scale: int  # 2**(n + scale) is a normal number for every n in use
    tanh_one: float  # tanh rounds to 1 from here on


_FLOAT32 = _Exp(6, 1.5 * 2**23 + 127, 0.693359375, -2.12194440e-4, 104.0, 64, 10.0)
_FLOAT64 = _Exp(12, 1.5 * 2**52 + 1023, 6.93145751953125e-1, 1.42860682030941723212e-6, 746.0, 512, 20.0)


def _of(v: Vectors) -> _Exp:
    return _FLOAT32 if v.bits == 32 else _FLOAT64


@cache
def _expm1_coefficients(degree: int) -> tuple[float, ...]:
    """P in expm1(r) = r P(r) on [-ln 2 / 2, ln 2 / 2], lowest power first."""
    edge = np.log(2) / 2

    def quotient(r: np.ndarray) -> np.ndarray:
        return np.where(r == 0, 1.0, np.expm1(r) / np.where(r == 0, 1.0, r))

    fit = np.polynomial.chebyshev.Chebyshev.interpolate(quotient, degree - 1, domain=[-edge, edge])
    return tuple(fit.convert(kind=np.polynomial.Polynomial).coef.tolist())


def _reduced_expm1(v: Vectors, x: Vector) -> tuple[Vector, Vector]:
    """-> expm1(r), and n plus magic, where x = n ln 2 + r."""
    k = _of(v)
    biased = v.fma(x, v.constant(1 / np.log(2)), v.constant(k.magic))
    n = biased - v.constant(k.magic)
    r = v.fma(n, v.constant(-k.ln2_low), v.fma(n, v.constant(-k.ln2_high), x))
    high, *rest = reversed(_expm1_coefficients(k.degree))
    p = v.constant(high)
    for coefficient in rest:
        p = v.fma(p, r, v.constant(coefficient))
    return p * r, biased


def _sigmoid_parts(x: Vector) -> tuple[Vector, Vector]:
    """sigma(x) as a quotient: -> numerator in [0, 1], denominator in [1, 2]."""
    v = x.of
    k = _of(v)
    magnitude = v.minimum(v.absolute(x), v.constant(k.zero_below))
    p, biased = _reduced_expm1(v, v.zero() - magnitude)
    power = v.exponent(biased + v.constant(k.scale))
    e = v.fma(p, power, power) * v.constant(2.0**-k.scale)
    one = v.constant(1.0)
    return v.where_negative(x, e, one), one + e


def _tanh_parts(x: Vector) -> tuple[Vector, Vector]:
    """tanh(x) as a quotient: -> numerator in [-1, 1], denominator in [1, 2]."""
    v = x.of
    k = _of(v)
    magnitude = v.minimum(v.absolute(x), v.constant(k.tanh_one))
    p, biased = _reduced_expm1(v, v.constant(-2.0) * magnitude)
    power = v.exponent(biased)
    e = v.fma(p, power, power - v.constant(1.0))
    return v.copysign(e, x), v.constant(2.0) + e


def sigmoid(x: Vector) -> Vector:
    numerator, denominator = _sigmoid_parts(x)
    return numerator / denominator


def tanh(x: Vector) -> Vector:
    numerator, denominator = _tanh_parts(x)
    return numerator / denominator


def sigmoid_tanh(a: Vector, b: Vector) -> Vector:
    """sigma(a) * tanh(b) with one division."""
    numerator, denominator = _sigmoid_parts(a)
    numerator_b, denominator_b = _tanh_parts(b)
    return numerator * numerator_b / (denominator * denominator_b)


ACTIVATIONS = Activations(sigmoid, tanh, sigmoid_tanh)
