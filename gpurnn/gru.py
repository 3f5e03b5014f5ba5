"""The module in which pickles of version 0.1.0 look for GRU; later ones say `gpurnn.GRU`."""

from .layers.gru import GRU as GRU
