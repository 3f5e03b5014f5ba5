"""PyTorch modules that run, forward and backward, on gpurnn's kernels: `LSTM`, `GRU`, and `replace` for whole models.

They are `torch.nn.LSTM` and `torch.nn.GRU` with another `forward`: the same constructor, parameters, state dict and pickles.
A GRU is reset-after, as PyTorch's. CPU tensors are read where they lie; CUDA tensors and weights go through DLPack to the CUDA
backend, on the current stream that PyTorch has on their device, whichever device is the current one (not yet run on a GPU).

`precision="bf16"` or `"int8"` holds in eval mode, where gradients must not be asked for (torch.no_grad()); in training mode
products stay in the weights' dtype.

Each call compares the values of its weights with those of the last one: `weight.data`, optimizers and other processes change
them without PyTorch's counters. On CUDA one comparison of them all waits for the stream, so no call can be recorded in a CUDA
graph. Results on CUDA lie in CuPy's memory, for which `Tensor.record_stream` does nothing: a result that another stream reads
is dropped after that stream was waited for.

Whatever traces a model (`torch.compile`, `torch.export`, `make_fx`, `torch.jit.trace`) sees one operator a call,
`gpurnn::lstm` or `gpurnn::gru`; a program that loads such a graph imports this module first. `torch.compile` breaks its graph
at these modules, as at PyTorch's own, unless `torch._dynamo.config.allow_rnn` is set. An operator's gradients run the forward
pass a second time, which calls that nothing traces do not. `torch.onnx.export` writes what it writes for PyTorch's own
modules. `torch.jit.script`, `torch.func`'s vmap, grad and jvp, and second derivatives are refused.
Under `torch.autocast` inputs are cast to the dtype of the weights, float32 or float64.
"""

from .modules import GRU, LSTM
from .replacing import replace

__all__ = ["GRU", "LSTM", "replace"]
