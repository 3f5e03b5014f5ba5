"""The CUDA backend without a GPU: a device whose memory is NumPy's and which interprets the PTX that numba-cuda compiles.

From the bottom up: `compile` makes PTX and machine code with no driver, `parser` reads PTX, `instructions` say what each
opcode does to arrays over threads, `program` joins them into basic blocks, `memory` and `races` check every access,
`scheduler` runs the blocks, and `device` puts all this behind the seam of `gpurnn_kernels.cuda.host.device`.
README.md beside this package says what is modelled, what is not, and how an opcode is added.
"""
