"""Sigma and tanh on a GPU, without subroutines, within 4 ulp: in float32 those of `single.py`; in float64 those of
`gpurnn_kernels/activations.py` over a quotient that `rcp.approx` starts and remainders correct. Results below the smallest
normal number are zero.

With `fast_math`, float32 takes the hardware's `tanh.approx` (compute capability 7.5 on), at most 2**-11 off relative to the
result, and sigma(x) = tanh(x / 2) / 2 + 1/2, at most 2**-12 off absolutely: it has no relative accuracy for x << 0.
"""

from collections.abc import Callable

from ...activations import make_activations
from ...cells import Activations
from . import single
from .number import Value


def _double_quotient(numerator: Value, d: Value) -> Value:
    """numerator / d for d >= 1, finite."""
    s = d.of
    less, one = s.negative(d), s.constant(1.0)
    inverse = s.instruction("rcp.approx.ftz.f64", d)  # 20 bits of it
    inverse = s.fma(inverse, s.fma(less, inverse, one), inverse)
    q = numerator * inverse
    q = s.fma(inverse, s.fma(less, q, numerator), q)
    huge = s.builder.fcmp_ordered(">=", d.value, s.constant(2.0**1022).value)
    return s.select(huge, s.constant(0.0), q)


def _by_width(in_single: Callable[..., Value], in_double: Callable[..., Value]) -> Callable[..., Value]:
    return lambda *x: (in_single if x[0].of.bits == 32 else in_double)(*x)


def fast_tanh(x: Value) -> Value:
    return x.of.instruction("tanh.approx.f32", x)


def fast_sigmoid_of_half(half_x: Value) -> Value:
    """sigma(x), given x / 2."""
    half = half_x.of.constant(0.5)
    return half_x.of.fma(half, fast_tanh(half_x), half)


def fast_sigmoid(x: Value) -> Value:
    return fast_sigmoid_of_half(x.of.constant(0.5) * x)


# from 709 on 2 * (1 + e**x) is finite, and its inverse below the normal numbers
_DOUBLE = make_activations(_double_quotient, {64: 709.0})
_SINGLE = single.ACTIVATIONS._asdict()
ACCURATE = Activations(**{name: _by_width(_SINGLE[name], function) for name, function in _DOUBLE._asdict().items()})


def _fast(sigmoid: Callable[[Value], Value]) -> Activations:
    return ACCURATE._replace(
        sigmoid=sigmoid, tanh=fast_tanh, sigmoid_tanh=lambda a, b: sigmoid(a) * fast_tanh(b), forget=sigmoid
    )


FAST, FAST_OF_HALVES = _fast(fast_sigmoid), _fast(fast_sigmoid_of_half)
