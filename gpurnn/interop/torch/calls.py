"""One call of a gpurnn layer on tensors, its gradients, and the layer that stands for PyTorch's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.utils.dlpack

from gpurnn_kernels.spec import Array

from ...backend import place_of
from ...export.torch import Shape
from ...layers.make import converted

Tensor = torch.Tensor

_LIBRARIES = Path(torch.__file__).parent / "lib"
DTYPES = (torch.float32, torch.float64)
NO_FORWARD_MODE = "gpurnn has no derivatives in forward mode (jvp, jacfwd): use backward() or torch.autograd.grad"


class Prepared(NamedTuple):
    """A gpurnn layer, and copies of the values that it was made of."""

    values: list[Tensor]
    layer: Any

    @classmethod
    def of(cls, shape: Shape, weights: Sequence[Tensor], precision: str | None = None) -> Prepared:
        for one in weights:
            check_dtype(one.dtype)
        device = weights[0].device
        with _running_on(device):
            arrays = [_array(one) for one in weights]
            params = shape.params(dict(zip(shape.names, arrays, strict=True)))
            configuration = shape.configuration(arrays[0].dtype) | {"precision": precision}
            layer = converted(shape.kind, configuration, params, place_of(arrays[0]))
            made = cls([one.clone() for one in _values(weights)], layer)
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()  # calls on other streams may be the next to read it
        return made

    def stands_for(self, weights: Sequence[Tensor]) -> bool:
        """Tells whether the weights are the same numbers still. Waits for a GPU, once."""
        return all(map(_same, _values(weights), self.values))


def check_dtype(dtype: torch.dtype) -> None:
    """Raises NotImplementedError for weights of a dtype that gpurnn has not got."""
    if dtype not in DTYPES:
        raise NotImplementedError(
            f"{name_of(dtype)} modules do not run on gpurnn; keep the recurrent layers in float32: module.float()"
        )


def name_of(dtype: torch.dtype) -> str:
    """Gives NumPy's name of a dtype."""
    return str(dtype).removeprefix("torch.")


class Function(torch.autograd.Function):
    """One gpurnn call, and its vector-Jacobian product."""

    @staticmethod
    def forward(
        ctx: Any, layer: Any, shape: Shape, lengths: Tensor | None, keep: bool, count: int, x: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """`keep`: a gradient may be asked for. rest: the state's tensors, `count` of them, and the weights."""
        results, ctx.vjp = run(layer, x, rest[:count], lengths, keep)
        ctx.shape, ctx.count, ctx.finals = shape, count, [(one.shape, one.dtype, one.device) for one in results[1:]]
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *dfinal: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            no_second_derivatives()
        given: list[Tensor] | None = None
        if any(one is not None for one in dfinal):
            given = [
                torch.zeros(shape, dtype=dtype, device=device) if one is None else one
                for one, (shape, dtype, device) in zip(dfinal, ctx.finals, strict=True)
            ]
        dx, *found = gradients(ctx.vjp, ctx.shape, ctx.finals[0][2], ctx.count, dy, given)
        return (None, None, None, None, None, dx, *found)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(NO_FORWARD_MODE)


def no_second_derivatives(*_: Any) -> None:
    raise RuntimeError("gpurnn has no second derivatives: differentiate without create_graph=True")


def run(layer: Any, x: Tensor, states: Sequence[Tensor], lengths: Tensor | None, keep: bool) -> tuple[tuple[Tensor, ...], Any]:
    """Gives y and the final state's tensors; and, with `keep`, the call's `VJP`."""
    counts = None if lengths is None else lengths.numpy()
    vjp = None
    with _running_on(x.device):
        given = _state([_array(one) for one in states]) if states else None
        if keep:
            (y, final), vjp = layer.vjp(_array(x), given, counts)
        else:
            y, final = layer(_array(x), given, counts)
        return tuple(_tensor(one) for one in (y, *(final if len(layer.states) == 2 else (final,)))), vjp


def gradients(
    vjp: Any, shape: Shape, device: torch.device, count: int, dy: Tensor | None, dfinal: Sequence[Tensor] | None
) -> list[Tensor]:
    """Gives the gradients of x, of the `count` tensors of the state, and of PyTorch's weights."""
    with _running_on(device):
        grads = vjp(None if dy is None else _array(dy), None if dfinal is None else _state([_array(one) for one in dfinal]))
        weights = shape.weights(grads.params, gradients=True).values()
        states = grads.state if shape.kind == "LSTM" else (grads.state,)
        return [_tensor(one) for one in (grads.x, *states[:count], *weights)]


def _state(arrays: list[Array]) -> Any:
    """A pair for the LSTM, an array for the GRU."""
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def _running_on(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, calls run where PyTorch's own would: on a GPU in its current stream; on a CPU by the OpenMP threads that it has
    loaded, as long as both use as many."""
    if device.type == "cpu":
        from gpurnn_kernels.cpu import get_num_threads, openmp_of

        threads = get_num_threads()
        return openmp_of(_LIBRARIES) if threads > 1 and torch.get_num_threads() == threads else nullcontext()
    return _running_on_gpu(device)


@contextmanager
def _running_on_gpu(device: torch.device) -> Iterator[None]:
    """Inside, the GPU is PyTorch's current one and CuPy's, and CuPy's current stream is the one that PyTorch has there."""
    import cupy

    from gpurnn_kernels.cuda.host.cupy_device import gpu

    stream = _Stream(torch.cuda.current_stream(device))
    # the device first: CuPy makes a stream the current one of the device that it finds
    with torch.cuda.device(device), gpu(device.index).current(), cupy.cuda.Stream.from_external(stream):
        yield


class _Stream:
    """A stream of PyTorch's for other libraries: its own class has the method from 2.10 on."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._stream.cuda_stream


def _array(tensor: Tensor) -> Array:
    """The same memory as an array: NumPy's, or CuPy's on a GPU."""
    if tensor.is_cuda:
        import cupy

        array: Array = cupy.from_dlpack(tensor.detach())
        return array
    return tensor.detach().numpy()


def _tensor(array: Any) -> Tensor:
    found: Tensor = torch.utils.dlpack.from_dlpack(array)
    return found


def _values(weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights' numbers; those on a GPU one after the other, so that a comparison waits for it once."""
    plain = [one.detach() for one in weights]
    return [torch.cat([one.reshape(-1) for one in plain])] if plain[0].is_cuda else plain


def _same(new: Tensor, old: Tensor) -> bool:
    """Compared by value: `.data` and NumPy views change weights without PyTorch's counters noticing."""
    return new.device == old.device and new.dtype == old.dtype and torch.equal(new, old)
