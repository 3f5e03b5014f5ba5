"""Layers out of other frameworks' models: one file for each source. Gate orders, signs and biases are in `gates`.

A converter gives a layer that computes what its source computes, or refuses with the reason. Nothing of a framework is
imported until its converter is called.
"""

from .found import Found as Found
from .keras import from_keras as from_keras
from .onnx import from_onnx as from_onnx
from .onnx import list_onnx as list_onnx
from .torch import from_torch as from_torch
from .torch import to_torch as to_torch
