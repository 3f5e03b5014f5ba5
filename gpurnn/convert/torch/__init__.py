"""Layers out of PyTorch modules and state dicts."""
