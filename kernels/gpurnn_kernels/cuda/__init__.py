"""The CUDA backend: Numba kernels and GEMMs over device arrays. Exports what `gpurnn_kernels.protocol.Kernels` asks of a
backend."""

from .engine import backward as backward
from .engine import describe as describe
from .engine import forward as forward
from .engine import prepare as prepare
from .plain_call import PlainCall as PlainCall
from .stepper import Stepper as Stepper
