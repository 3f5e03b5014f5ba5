"""Sigma and tanh on a GPU: `gpurnn_kernels/activations.py` over a quotient that needs no subroutine, as a division would.

Within 4 ulp of the exact values in float32 and float64, whatever `rcp.approx` makes of its bound of 1 ulp: a quotient is
corrected by its remainder. Results below the smallest normal number are zero. The exponential stays a polynomial:
`ex2.approx` may be off by 2**-22, four units in the last place before anything else.

With `fast_math`, float32 takes the hardware's `tanh.approx` (compute capability 7.5 on), at most 2**-11 off relative to the
result, and sigma(x) = tanh(x / 2) / 2 + 1/2, at most 2**-12 off absolutely: it has no relative accuracy for x << 0.
"""

from ..activations import make_activations
from ..cells import Activations
from .scalar import Value


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


def fast_tanh(x: Value) -> Value:
    return x.of.instruction("tanh.approx.f32", x)


def fast_sigmoid(x: Value) -> Value:
    half = x.of.constant(0.5)
    return x.of.fma(half, fast_tanh(half * x), half)


# from there on 2 * (1 + e**x) is finite, and its inverse below the normal numbers
ACCURATE = make_activations(_quotient, {32: 88.0, 64: 709.0})
FAST = Activations(fast_sigmoid, fast_tanh, lambda a, b: fast_sigmoid(a) * fast_tanh(b))
