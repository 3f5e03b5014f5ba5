"""The CPU backend: Numba kernels over NumPy arrays. Exports what `gpurnn_kernels.protocol.Kernels` asks of a backend."""

from .chain import PlainCall as PlainCall
from .chain import Stepper as Stepper
from .engine import backward as backward
from .engine import describe as describe
from .engine import forward as forward
from .engine import prepare as prepare
from .shelf import ARRAYS as ARRAYS
from .threads.count import get_num_threads as get_num_threads
from .threads.count import set_num_threads as set_num_threads
from .threads.count import threads as threads
from .threads.openmp import openmp_of as openmp_of
from .warmup import warmup as warmup
