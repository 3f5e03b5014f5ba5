"""The module in which pickles of version 0.1.0 look for LSTM; later ones say `gpurnn.LSTM`."""

from .layers.lstm import LSTM as LSTM
