"""The module in which pickles of version 0.1.0 look for LSTM; those of this version name gpurnn.layers.lstm."""

from .layers.lstm import LSTM as LSTM
