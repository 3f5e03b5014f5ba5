"""LSTM and GRU layers, forward and back-propagation through time, as Numba kernels for the CPU and the GPU.

import numpy as np, gpurnn

lstm = gpurnn.LSTM(input_size=40, hidden_size=128)
y, (h_n, c_n) = lstm(np.zeros((100, 8, 40), np.float32))     # (T, B, I) -> (T, B, H)
"""

from .interrupts import quiet_in_the_command_line as _quiet

with _quiet():
    import logging
    from importlib.metadata import PackageNotFoundError as _Missing
    from importlib.metadata import version as _version

    from .cells import gru_cell as gru_cell
    from .cells import lstm_cell as lstm_cell
    from .convert import from_keras as from_keras
    from .convert import from_onnx as from_onnx
    from .convert import from_torch as from_torch
    from .convert import list_onnx as list_onnx
    from .layers.base import RecurrentLayer as RecurrentLayer
    from .layers.call import Plan as Plan
    from .layers.gradients import Gradients as Gradients
    from .layers.gru import GRU as GRU
    from .layers.lstm import LSTM as LSTM
    from .layers.make import load as load
    from .layers.stream import Captured as Captured
    from .layers.stream import Stream as Stream
    from .thread_count import get_num_threads as get_num_threads
    from .thread_count import set_num_threads as set_num_threads
    from .thread_count import threads as threads

    try:
        __version__ = _version("gpurnn")
    except _Missing:  # sources on a path, not installed
        __version__ = "0+unknown"

# without a handler of its own, Python would print warnings on standard error
logging.getLogger("gpurnn").addHandler(logging.NullHandler())
