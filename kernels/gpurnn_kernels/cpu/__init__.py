"""The CPU backend: Numba kernels over NumPy arrays. Exports what `gpurnn_kernels.protocol.Kernels` asks of a backend."""

from .chain import PlainCall as PlainCall
from .chain import Stepper as Stepper
from .engine import backward as backward
from .engine import describe as describe
from .engine import forward as forward
from .engine import prepare as prepare
from .shelf import ARRAYS as ARRAYS
from .team import get_num_threads as get_num_threads
from .team import set_num_threads as set_num_threads
from .warmup import warmup as warmup
