"""PyTorch on the GPU: cuDNN's LSTM and GRU; a loop of operators for the reset-before GRU, which it has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.cuda.grid import GpuCase
from bench.cuda.running import Running
from bench.harness.data import F32, Arrays
from bench.harness.errors import Missing
from bench.peers.gates import theirs
from gpurnn.gates import TORCH


def build(case: GpuCase, weights: Arrays, inputs: Sequence[F32], dy: F32) -> Running:
    try:
        import torch as installed
    except ImportError as error:
        raise Missing(str(error)) from None
    torch: Any = installed
    if not torch.cuda.is_available():
        raise Missing("this PyTorch sees no GPU")
    tf32 = case.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    dtype = torch.float16 if case.precision == "float16" else torch.float32
    module = (_reset_before(torch, case, weights) if case.cell == "gru" else _cudnn(torch, case, weights)).to("cuda", dtype)
    training = case.kind == "train"
    xs = [torch.from_numpy(x).to("cuda", dtype).requires_grad_(training) for x in inputs]
    gradient = torch.from_numpy(dy).to("cuda", dtype)

    def call(k: int) -> Any:
        with torch.set_grad_enabled(training):
            y = module(xs[k])[0]
        if training:
            torch.autograd.grad(y, [xs[k], *module.parameters()], gradient)
        return y

    def event() -> Any:
        made = torch.cuda.Event(enable_timing=True)
        made.record()
        return made

    return Running(
        call=call,
        to_numpy=lambda y: y.detach().float().cpu().numpy(),
        event=event,
        milliseconds=lambda first, last: first.elapsed_time(last),
        wait=torch.cuda.synchronize,
        plan="loop of operators" if case.cell == "gru" else f"cuDNN {torch.backends.cudnn.version()}",
    )


def _cudnn(torch: Any, case: GpuCase, weights: Arrays) -> Any:
    module = (torch.nn.LSTM if case.cell == "lstm" else torch.nn.GRU)(case.hidden, case.hidden)
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), theirs(case.case, weights, TORCH), strict=True):
            parameter.copy_(torch.from_numpy(array))
    return module


def _reset_before(torch: Any, case: GpuCase, weights: Arrays) -> Any:
    H = case.hidden

    class ResetBefore(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, array in weights.items():
                setattr(self, name, torch.nn.Parameter(torch.from_numpy(array)))

        def forward(self, x: Any) -> Any:
            a = torch.nn.functional.linear(x, self.W_x, self.b)  # (T, B, 3H)
            h = x.new_zeros(x.shape[1], H)
            steps = []
            for a_t in a:
                zr = torch.sigmoid(a_t[:, : 2 * H] + h @ self.W_h[: 2 * H].T)
                n = torch.tanh(a_t[:, 2 * H :] + (zr[:, H:] * h) @ self.W_h[2 * H :].T)
                h = torch.lerp(h, n, zr[:, :H])
                steps.append(h)
            return torch.stack(steps), h

    return ResetBefore()
