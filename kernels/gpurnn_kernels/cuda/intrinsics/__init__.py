"""The only place of LLVM and PTX in the CUDA backend: numbers, memory, products of a warp."""
