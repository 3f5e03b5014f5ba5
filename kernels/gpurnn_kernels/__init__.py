"""The numerics of gpurnn: arrays and numbers, nothing of layers, files or users."""
