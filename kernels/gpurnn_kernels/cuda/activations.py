"""Sigma and tanh on a GPU, each a quotient, so that a product of the two takes one division.

    sigma(x) = 1 / (1 + e**-x)
    tanh(|x|) = -E / (2 + E), E = expm1(-2|x|)   no relative accuracy is lost near 0

Within 4 ulp of the exact values in float32 and float64, whatever `rcp.approx` makes of its bound of 1 ulp: a quotient is
corrected by its remainder, and needs no subroutine as a division would. Results below the smallest normal number are zero,
limits are exact and NaN comes through.

The exponential is a polynomial: `ex2.approx` may be off by 2**-22, four units in the last place before anything else.
x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6);
expm1(r) = r P(r); 2**n by shifting n, which the rounding by a magic number left in the low bits, into the exponent.

With `fast_math`, float32 takes the hardware's `tanh.approx` (compute capability 7.5 on), at most 2**-11 off relative to the
result, and sigma(x) = tanh(x / 2) / 2 + 1/2, at most 2**-12 off absolutely: it has no relative accuracy for x << 0.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from ..cells import Activations
from .scalar import Scalars, Value


class _Format(NamedTuple):
    """What the exponential needs to know of a float type."""

    magic: float  # 1.5 * 2**mantissa bits + exponent bias
    ln2_high: float
    ln2_low: float
    exp_most: float  # 2 * (1 + e**exp_most) is finite, and its inverse below the normal numbers
    exp_least: float  # 2**n is still normal, and 1 + e**exp_least is 1
    tanh_one: float  # tanh rounds to 1 from here on


_FLOAT32 = _Format(1.5 * 2**23 + 127, 0.693359375, -2.12194440e-4, 88.0, -87.0, 10.0)
_FLOAT64 = _Format(1.5 * 2**52 + 1023, 6.93145751953125e-1, 1.42860682030941723212e-6, 709.0, -708.0, 20.0)


def _format(s: Scalars) -> _Format:
    return _FLOAT32 if s.bits == 32 else _FLOAT64


@cache
def _expm1_over_r(bits: int) -> tuple[float, ...]:
    """Coefficients, highest power first, of P in expm1(r) = r P(r), |r| <= ln 2 / 2: in float32 the polynomial that meets it
    at the Chebyshev nodes (an even number of them: none is 0); in float64 Taylor's."""
    if bits == 64:
        return tuple(1 / math.factorial(power + 1) for power in range(12, -1, -1))
    edge = np.log(2) / 2
    nodes = np.polynomial.chebyshev.Chebyshev.interpolate(lambda r: np.expm1(r) / r, 5, domain=[-edge, edge])
    single = nodes.convert(kind=np.polynomial.Polynomial).coef[::-1].astype(np.float32)
    return tuple(float(coefficient) for coefficient in single)


def _polynomial(s: Scalars, r: Value) -> Value:
    """P(r), by Horner's rule."""
    highest, *others = _expm1_over_r(s.bits)
    p = s.constant(highest)
    for coefficient in others:
        p = s.fma(p, r, s.constant(coefficient))
    return p


def _reduce(s: Scalars, x: Value) -> tuple[Value, Value]:
    """-> r and 2**n, where x = n ln 2 + r."""
    k = _format(s)
    biased = s.fma(x, s.constant(1 / math.log(2)), s.constant(k.magic))
    n = biased - s.constant(k.magic)
    r = s.fma(n, s.constant(-k.ln2_low), s.fma(n, s.constant(-k.ln2_high), x))
    return r, s.exponent(biased)


def _quotient(numerator: Value, d: Value) -> Value:
    """numerator / d for d >= 1, finite."""
    s = d.of
    less = s.negative(d)
    if s.bits == 32:
        inverse = s.instruction("rcp.approx.ftz.f32", d)
    else:
        inverse = s.instruction("rcp.approx.ftz.f64", d)  # 20 bits of it
        inverse = s.fma(inverse, s.fma(less, inverse, s.constant(1.0)), inverse)
    q = numerator * inverse
    q = s.fma(inverse, s.fma(less, q, numerator), q)
    if s.bits == 32:
        return q  # the instruction has made zero of what is no normal number
    huge = s.builder.fcmp_ordered(">=", d.value, s.constant(2.0**1022).value)
    return Value(s, s.builder.select(huge, s.constant(0.0).value, q.value))


def _sigmoid_denominator(x: Value) -> Value:
    """1 + e**-x"""
    s = x.of
    k = _format(s)
    r, power = _reduce(s, s.minimum(s.maximum(s.negative(x), s.constant(k.exp_least)), s.constant(k.exp_most)))
    one = s.constant(1.0)
    return s.fma(s.fma(_polynomial(s, r), r, one), power, one)


def _tanh_parts(x: Value) -> tuple[Value, Value]:
    """-> numerator in [-1, 1], denominator in [1, 2]."""
    s = x.of
    k = _format(s)
    magnitude = s.minimum(s.absolute(x), s.constant(k.tanh_one))
    r, power = _reduce(s, s.constant(-2.0) * magnitude)
    p = _polynomial(s, r) * r
    e = s.fma(p, power, power - s.constant(1.0))
    return s.copysign(e, x), s.constant(2.0) + e


def sigmoid(x: Value) -> Value:
    return _quotient(x.of.constant(1.0), _sigmoid_denominator(x))


def tanh(x: Value) -> Value:
    numerator, denominator = _tanh_parts(x)
    return _quotient(numerator, denominator)


def sigmoid_tanh(a: Value, b: Value) -> Value:
    """sigma(a) * tanh(b) with one division."""
    numerator, denominator = _tanh_parts(b)
    return _quotient(numerator, _sigmoid_denominator(a) * denominator)


def fast_tanh(x: Value) -> Value:
    return x.of.instruction("tanh.approx.f32", x)


def fast_sigmoid(x: Value) -> Value:
    half = x.of.constant(0.5)
    return x.of.fma(half, fast_tanh(half * x), half)


_Function = Callable[[Value], Value]


def _product(sigmoid: _Function, tanh: _Function) -> Callable[[Value, Value], Value]:
    return lambda a, b: sigmoid(a) * tanh(b)


ACCURATE = Activations(sigmoid, tanh, sigmoid_tanh)
FAST = Activations(fast_sigmoid, fast_tanh, _product(fast_sigmoid, fast_tanh))
