"""Sigma and tanh for every backend that emits code. Each is a quotient, so that a product of the two takes one division.

    sigma(x) = 1 / (1 + e**-x)
    tanh(|x|) = -E / (2 + E), E = expm1(-2|x|)   no relative accuracy is lost near 0

Limits are exact and NaN comes through. The exponential is e**(k x), where k is a power of two that is folded into constants.
It takes x = n ln 2 / k + r with |k r| <= ln 2 / 2. ln 2 is split in two, so that n * LN2_HIGH is exact with or without fma
(Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6). Then expm1(k r) = r P(r), and 2**n is made by
shifting n into the exponent: rounding by a magic number has left n in the low bits. x is a sum of products and is never
scaled: scaling weights and biases would round them, and the exponential would multiply that error by |x|.

A *number* here is a value while code is being emitted. It has `+ - *`, and `of`, which knows its `bits`, 32 or 64, and has
constant, fma, minimum and maximum (a NaN in the first argument comes through), negative, absolute, copysign, exponent and
by_sign.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .cells import Activations, Number

Function = Callable[..., Any]


class Format(NamedTuple):
    """Constants of a float type for the exponential."""

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
    """Gives the coefficients, highest power first, of P in expm1(r log) = r P(r), |r log| <= ln 2 / 2.

    In float32 P meets expm1 at the Chebyshev nodes (an even number of them, so that none is 0). In float64, where finding
    those takes more bits, P is Taylor's polynomial.
    """
    if bits == 64:
        return tuple(log ** (power + 1) / math.factorial(power + 1) for power in range(12, -1, -1))
    edge = np.log(2) / 2 / abs(log)
    nodes = np.polynomial.chebyshev.Chebyshev.interpolate(lambda r: np.expm1(r * log) / r, 5, domain=[-edge, edge])
    single = nodes.convert(kind=np.polynomial.Polynomial).coef[::-1].astype(np.float32)
    return tuple(float(coefficient) for coefficient in single)


def polynomial(r: Number, log: float = 1.0) -> Number:
    """Gives P(r) in e**(r log) = 1 + r P(r), by Horner's rule."""
    v = r.of
    highest, *others = _expm1_over_r(v.bits, log)
    p = v.constant(highest)
    for coefficient in others:
        p = v.fma(p, r, v.constant(coefficient))
    return p


def exponential(r: Number, log: float = 1.0) -> Number:
    """Gives e**(r log) for |r log| <= ln 2 / 2."""
    return r.of.fma(polynomial(r, log), r, r.of.constant(1.0))


def reduced(x: Number, log: float = 1.0) -> tuple[Number, Number]:
    """Gives r and 2**n, where e**(x log) = 2**n e**(r log) and |r log| <= ln 2 / 2. log is a power of two, of either sign."""
    v = x.of
    k = FORMATS[v.bits]
    n, power = _powers_of_two(x, log)
    return v.fma(n, v.constant(-k.ln2_low / log), v.fma(n, v.constant(-k.ln2_high / log), x)), power


def _powers_of_two(x: Number, log: float) -> tuple[Number, Number]:
    """Gives n and 2**n, where n ln 2 is the multiple of ln 2 nearest to x log."""
    v = x.of
    magic = v.constant(FORMATS[v.bits].magic)
    biased = v.fma(x, v.constant(log / math.log(2)), magic)
    return biased - magic, v.exponent(biased)


def _tanh_parts(x: Number) -> tuple[Number, Number]:
    """Gives the numerator of tanh in [-1, 1] and its denominator in [1, 2]. ln 2 is not split: where n is large, 2**n is
    too small to matter."""
    v = x.of
    less = v.maximum(v.copysign(x, v.constant(-1.0)), v.constant(-FORMATS[v.bits].tanh_one))
    n, power = _powers_of_two(less, 2.0)
    r = v.fma(n, v.constant(-math.log(2) / 2), less)
    e = v.fma(polynomial(r, 2.0) * r, power, power - v.constant(1.0))
    return v.copysign(e, x), v.constant(2.0) + e


def make_activations(
    quotient: Function, exp_most: Mapping[int, float], once: Callable[[Function], Function] = lambda function: function
) -> Activations:
    """Makes the activations over a division. quotient(a, b) gives a / b for b >= 1. exp_most says, by bits, where e**-x is
    clamped, so that the quotient is exact beyond. once(function) has a function of one number emitted once for each number."""

    def minus_exponential(x: Number) -> tuple[Number, Number]:
        """Gives e**-x as a factor and the power of two that multiplies it."""
        v = x.of
        least, most = v.constant(-exp_most[v.bits]), v.constant(-FORMATS[v.bits].exp_least)
        r, power = reduced(v.minimum(v.maximum(x, least), most), -1.0)
        return exponential(r, -1.0), power

    return as_quotients(quotient, minus_exponential, _tanh_parts, once)


def as_quotients(
    quotient: Function,
    minus_exponential: Callable[[Number], tuple[Number, Number]],
    tanh_parts: Callable[[Number], tuple[Number, Number]],
    once: Callable[[Function], Function] = lambda function: function,
) -> Activations:
    """Makes the activations from their parts. quotient and once are like those of `make_activations`. minus_exponential(x)
    gives e**-x as two factors. tanh_parts(x) gives a numerator and a denominator >= 1."""
    minus_exponential, tanh_parts = once(minus_exponential), once(tanh_parts)

    @once
    def sigmoid_denominator(x: Number) -> Number:
        return x.of.fma(*minus_exponential(x), x.of.constant(1.0))

    @once
    def sigmoid(x: Number) -> Number:
        return quotient(x.of.constant(1.0), sigmoid_denominator(x))

    @once
    def tanh(x: Number) -> Number:
        return quotient(*tanh_parts(x))

    def sigmoid_tanh(a: Number, b: Number) -> Number:
        """Gives sigma(a) * tanh(b) with one division."""
        numerator, denominator = tanh_parts(b)
        return quotient(numerator, sigmoid_denominator(a) * denominator)

    @once
    def forget(x: Number) -> Number:
        """Gives sigma(x), but 1 - e**-x sigma(x) where x > 0: the sum 1 + e**-x has one bit less for e**-x than sigma has."""
        v, (factor, power), s = x.of, minus_exponential(x), sigmoid(x)
        return v.by_sign(x, v.fma(v.negative(factor), power * s, v.constant(1.0)), s)

    @once
    def complement(a: Number) -> Number:
        return a.of.constant(1.0) - a

    def sigmoid_grad(s: Number, q: Number, dp: Number) -> Number:
        return dp * s * q * complement(s)

    def tanh_grad(t: Number, dt: Number) -> Number:
        return dt * complement(t * t)

    return Activations(sigmoid, tanh, sigmoid_tanh, forget, complement, sigmoid_grad, tanh_grad)
