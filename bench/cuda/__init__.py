"""The CUDA backend against PyTorch and cuDNN, and its machine code without a GPU."""
