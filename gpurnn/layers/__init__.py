"""The layers: their description and parameters, calls, gradients, streams and files."""
