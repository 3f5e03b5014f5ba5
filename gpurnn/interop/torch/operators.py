"""`torch.ops.gpurnn.lstm` and `gru`, and their gradients: what PyTorch's compilers, tracers and modes see of a call.

A call that PyTorch runs here and now takes a shorter way (`calls.Function`), on the same kernels. An operator's gradient is an
operator as well; it has nothing but tensors to go by, and runs the forward pass again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils.weak import WeakTensorKeyDictionary

from gpurnn_kernels.spec import REDUCED

from ...export.torch import Shape
from ...layers.description import Kind
from .calls import NO_FORWARD_MODE, Prepared, Tensor, check_dtype, gradients, no_second_derivatives, run

PLAIN = (torch.Tensor, torch.nn.Parameter)  # subclasses stand for something else, or watch
_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.BackendSelect) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.ADInplaceOrView
)
_WATCHED = ~_KEYS.raw_repr()  # the bits of all keys that a thread includes only while something watches what it calls

# the layers of the last calls, by the first of their weights, with which they go
_prepared = WeakTensorKeyDictionary()


def runs_now(x: Any) -> bool:
    """Tells whether a call on x is to be run here and now, unseen by any compiler, tracer, mode or transform.

    All of these but torch.compile put a key of their own among those of the thread.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) in PLAIN
        and not torch._C._dispatch_tls_local_include_set().raw_repr() & _WATCHED
        and (x.is_cpu or x.is_cuda)
    )


def call(
    shape: Shape, x: Tensor, states: list[Tensor], weights: list[Tensor], lengths: Tensor | None, precision: str | None
) -> Any:
    """The operator's y and final state."""
    check_dtype(weights[0].dtype)
    _check_transforms()
    operator = torch.ops.gpurnn.lstm if shape.kind == "LSTM" else torch.ops.gpurnn.gru
    return operator(x, states, weights, lengths, *_sizes(shape), precision)


def _check_transforms() -> None:
    """Raises NotImplementedError where the operator's derivatives would be lost, or refused in other words."""
    if forward_ad._current_level >= 0:
        raise NotImplementedError(NO_FORWARD_MODE)
    if torch.compiler.is_compiling():
        return  # PyTorch refuses the others in its own words
    transform = torch._C._functorch.peek_interpreter_stack()
    if transform is not None and transform.key() != torch._C._functorch.TransformType.Functionalize:
        raise NotImplementedError(
            f"gpurnn's modules do not run under torch.func.{transform.key().name.lower()}: "
            "use backward() or torch.autograd.grad, and a batch"
        )


def _sizes(shape: Shape) -> tuple[Any, ...]:
    """An operator's last arguments."""
    found = shape.hidden_size, shape.num_layers, shape.bias, shape.bidirectional
    return (*found, shape.proj_size) if shape.kind == "LSTM" else found


def _define(kind: Kind) -> None:
    """Registers the operator of a kind and that of its gradients."""
    name, two = f"gpurnn::{kind.lower()}", kind == "LSTM"
    inputs = "Tensor x, Tensor[] state, Tensor[] weights, Tensor? lengths, int hidden_size, int num_layers, bool bias, "
    inputs += "bool bidirectional" + ", int proj_size" * two
    last = 5 if two else 4  # sizes; behind them the precision, unless it is None
    options: dict[str, Any] = {"mutates_args": (), "device_types": ("cpu", "cuda")}

    def shape_of(weights: list[Tensor], sizes: tuple[Any, ...]) -> Shape:
        return Shape(kind, weights[0].shape[1], *sizes[:last])

    def forward(x: Tensor, state: list[Tensor], weights: list[Tensor], lengths: Tensor | None, *sizes: Any) -> Any:
        if forward_ad._current_level >= 0:
            raise NotImplementedError(NO_FORWARD_MODE)  # tangents end above
        return run(_layer(shape_of(weights, sizes), weights, *sizes[last:]), x, state, lengths, keep=False)[0]

    def backward(dy: Tensor, dfinal: list[Tensor], x: Tensor, state: list[Tensor], weights: list[Tensor], *rest: Any) -> Any:
        lengths, *sizes = rest
        shape = shape_of(weights, tuple(sizes))
        _, vjp = run(_layer(shape, weights), x, state, lengths, keep=True)
        return gradients(vjp, shape, x.device, len(state), dy, dfinal)

    def fake_forward(x: Tensor, state: list[Tensor], weights: list[Tensor], lengths: Tensor | None, *sizes: Any) -> Any:
        return _like_results(shape_of(weights, sizes), x, state)

    def fake_backward(dy: Tensor, dfinal: list[Tensor], x: Tensor, state: list[Tensor], weights: list[Tensor], *_: Any) -> Any:
        return [one.new_empty(one.shape) for one in (x, *state, *weights)]

    results = ", ".join(["Tensor"] * (3 if two else 2))
    gradient_inputs = f"Tensor dy, Tensor[] dfinal, {inputs}"
    operator = torch.library.custom_op(name, forward, schema=f"({inputs}, str? precision=None) -> ({results})", **options)
    gradient = torch.library.custom_op(f"{name}_backward", backward, schema=f"({gradient_inputs}) -> Tensor[]", **options)
    operator.register_fake(fake_forward)
    gradient.register_fake(fake_backward)

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        x, state, weights, lengths, *rest = inputs
        ctx.sizes, precision = rest[:last], (*rest[last:], None)[0]
        ctx.given = last + (precision is not None)
        if precision in REDUCED:
            raise NotImplementedError(f"precision {precision!r} has no gradients: call the operator under torch.no_grad()")
        ctx.save_for_backward(x, lengths, *state, *weights)
        ctx.count = len(state)

    def differentiate(ctx: Any, dy: Tensor, *dfinal: Tensor) -> tuple[Any, ...]:
        x, lengths, *rest = ctx.saved_tensors
        state, weights = rest[: ctx.count], rest[ctx.count :]
        dx, *found = gradient(dy, list(dfinal), x, state, weights, lengths, *ctx.sizes)
        return (dx, found[: ctx.count], found[ctx.count :], None, *[None] * ctx.given)

    operator.register_autograd(differentiate, setup_context=setup)
    gradient.register_autograd(no_second_derivatives)


def _layer(shape: Shape, weights: list[Tensor], precision: str | None = None) -> Any:
    """The gpurnn layer of these weights: the last call's, if they are the same numbers still."""
    kept: dict[tuple[Shape, str | None], Prepared] = _prepared.setdefault(weights[0], {})
    found = kept.get((shape, precision))
    if found is None or not found.stands_for(weights):
        found = kept[shape, precision] = Prepared.of(shape, weights, precision)
    return found.layer


def _like_results(shape: Shape, x: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
    """y and the final state without numbers."""
    if x.shape[2] != shape.input_size:
        raise ValueError(f"x: expected shape (T, B, {shape.input_size}), got {tuple(x.shape)}")
    steps, batch, _ = x.shape
    directions = 2 if shape.bidirectional else 1
    output = shape.proj_size or shape.hidden_size
    widths = (output, shape.hidden_size) if shape.kind == "LSTM" else (output,)
    finals = [(shape.num_layers * directions, batch, width) for width in widths]
    for one, wanted in zip(state, finals, strict=bool(state)):
        if tuple(one.shape) != wanted:
            raise ValueError(f"hx: expected shape {wanted}, got {tuple(one.shape)}")
    return tuple(x.new_empty(size) for size in [(steps, batch, directions * output), *finals])


_define("LSTM")
_define("GRU")
