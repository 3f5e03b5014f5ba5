"""The numerics of gpurnn: arrays and numbers, nothing of layers, files or users."""

from . import digest as digest  # first: it looks at all modules before they are read
