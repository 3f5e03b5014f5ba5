"""Layers out of other frameworks' models: a folder for each source.

A converter gives a layer that computes what its source computes, or refuses with the reason. Nothing of a framework is
imported until its converter is called.
"""

from .found import Found as Found
from .keras.entry import from_keras as from_keras
from .onnx.models import from_onnx as from_onnx
from .onnx.models import list_onnx as list_onnx
from .torch.modules import from_torch as from_torch
