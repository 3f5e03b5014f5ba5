"""Sigma and tanh on SIMD vectors: `gpurnn_kernels/activations.py` over a vector division.

Results are at most 4 ulp off in float32 (tests/test_activations.py measures it); those below the smallest normal number are
zero, as kernels run with denormals flushed.
"""

from ..activations import make_activations
from ..cells import Clip

# from here on e**x is infinite by 2**n alone, and 1 / inf = 0
ACTIVATIONS = make_activations(lambda a, b: a / b, {32: 88.7, 64: 709.7})
sigmoid, tanh, sigmoid_tanh = ACTIVATIONS
CLIP = Clip(lambda a, limit: a.of.clamp(a, limit), lambda gradient, a, limit: a.of.inside(gradient, a, limit))
