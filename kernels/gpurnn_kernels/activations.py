"""Sigma and tanh, once, for every backend that emits code: each a quotient, so that a product of the two takes one division.

    sigma(x) = 1 / (1 + e**-x)
    tanh(|x|) = -E / (2 + E), E = expm1(-2|x|)   no relative accuracy is lost near 0

Limits are exact and NaN comes through. The exponential: x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 split in two so that
n * LN2_HIGH is exact with or without fma (Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6);
expm1(r) = r P(r); 2**n by shifting n, which the rounding by a magic number left in the low bits, into the exponent.

A *number* here is a value while code is being emitted: `+ - *`, and `of`, which knows its `bits`, 32 or 64, and has constant,
fma, minimum and maximum (a NaN in the first comes through), negative, absolute, copysign and exponent.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from .cells import Activations, Number


class Format(NamedTuple):
    """What the exponential needs to know of a float type."""

    magic: float  # 1.5 * 2**mantissa bits + exponent bias
    ln2_high: float
    ln2_low: float
    exp_least: float  # 2**n is still normal, and 1 + e**exp_least is 1
    tanh_one: float  # tanh rounds to 1 from here on


FORMATS = {
    32: Format(1.5 * 2**23 + 127, 0.693359375, -2.12194440e-4, -87.0, 10.0),
    64: Format(1.5 * 2**52 + 1023, 6.93145751953125e-1, 1.42860682030941723212e-6, -708.0, 20.0),
}


@cache
def _expm1_over_r(bits: int, log: float) -> tuple[float, ...]:
    """Coefficients, highest power first, of P in expm1(r log) = r P(r), |r log| <= ln 2 / 2: in float32 the polynomial that
    meets it at the Chebyshev nodes (an even number of them: none is 0); in float64, where finding those takes more bits,
    Taylor's."""
    if bits == 64:
        return tuple(log ** (power + 1) / math.factorial(power + 1) for power in range(12, -1, -1))
    edge = np.log(2) / 2 / log
    nodes = np.polynomial.chebyshev.Chebyshev.interpolate(lambda r: np.expm1(r * log) / r, 5, domain=[-edge, edge])
    single = nodes.convert(kind=np.polynomial.Polynomial).coef[::-1].astype(np.float32)
    return tuple(float(coefficient) for coefficient in single)


def polynomial(r: Number, log: float = 1.0) -> Number:
    """P(r) in e**(r log) = 1 + r P(r), by Horner's rule."""
    v = r.of
    highest, *others = _expm1_over_r(v.bits, log)
    p = v.constant(highest)
    for coefficient in others:
        p = v.fma(p, r, v.constant(coefficient))
    return p


def exponential(r: Number, log: float = 1.0) -> Number:
    """e**(r log) for |r log| <= ln 2 / 2."""
    return r.of.fma(polynomial(r, log), r, r.of.constant(1.0))


def reduced(x: Number) -> tuple[Number, Number]:
    """-> r and 2**n, where x = n ln 2 + r."""
    v = x.of
    k = FORMATS[v.bits]
    biased = v.fma(x, v.constant(1 / math.log(2)), v.constant(k.magic))
    n = biased - v.constant(k.magic)
    r = v.fma(n, v.constant(-k.ln2_low), v.fma(n, v.constant(-k.ln2_high), x))
    return r, v.exponent(biased)


def _tanh_parts(x: Number) -> tuple[Number, Number]:
    """-> numerator in [-1, 1], denominator in [1, 2]."""
    v = x.of
    magnitude = v.minimum(v.absolute(x), v.constant(FORMATS[v.bits].tanh_one))
    r, power = reduced(v.constant(-2.0) * magnitude)
    p = polynomial(r) * r
    e = v.fma(p, power, power - v.constant(1.0))
    return v.copysign(e, x), v.constant(2.0) + e


def make_activations(quotient: Callable[[Number, Number], Number], exp_most: Mapping[int, float]) -> Activations:
    """quotient(a, b): a / b for b >= 1; exp_most: by bits, where e**-x is clamped, so that the quotient is exact beyond."""

    def sigmoid_denominator(x: Number) -> Number:
        """1 + e**-x"""
        v = x.of
        least, most = v.constant(FORMATS[v.bits].exp_least), v.constant(exp_most[v.bits])
        r, power = reduced(v.minimum(v.maximum(v.negative(x), least), most))
        return v.fma(exponential(r), power, v.constant(1.0))

    return as_quotients(quotient, sigmoid_denominator, _tanh_parts)


def as_quotients(
    quotient: Callable[[Number, Number], Number],
    sigmoid_denominator: Callable[[Number], Number],
    tanh_parts: Callable[[Number], tuple[Number, Number]],
) -> Activations:
    """quotient(a, b): a / b for b >= 1; sigmoid_denominator(x): 1 + e**-x; tanh_parts(x): numerator, denominator >= 1."""

    def sigmoid(x: Number) -> Number:
        return quotient(x.of.constant(1.0), sigmoid_denominator(x))

    def tanh(x: Number) -> Number:
        return quotient(*tanh_parts(x))

    def sigmoid_tanh(a: Number, b: Number) -> Number:
        """sigma(a) * tanh(b) with one division."""
        numerator, denominator = tanh_parts(b)
        return quotient(numerator, sigmoid_denominator(a) * denominator)

    return Activations(sigmoid, tanh, sigmoid_tanh)
