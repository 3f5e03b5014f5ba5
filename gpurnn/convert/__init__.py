"""Layers out of other frameworks' models: one file for each source. Gate orders, signs and biases are in `gates`.

A converter gives a layer that computes what its source computes, or refuses with the reason. Nothing of a framework is
imported until its converter is called.
"""

from .found import Found as Found
from .keras.live import from_keras as from_keras
from .onnx.models import from_onnx as from_onnx
from .onnx.models import list_onnx as list_onnx
from .torch.modules import from_torch as from_torch
from .torch.modules import to_torch as to_torch
