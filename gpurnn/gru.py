"""The module in which pickles of version 0.1.0 look for GRU; those of this version name gpurnn.layers.gru."""

from .layers.gru import GRU as GRU
