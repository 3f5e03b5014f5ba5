"""The part of the CUDA backend that runs on the host: devices, weights, calls."""
