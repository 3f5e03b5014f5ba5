"""gpurnn on CuPy arrays: as it plans by itself, and held to the stepwise path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import gpurnn
from bench.cuda.grid import GpuCase
from bench.cuda.running import Running
from bench.harness.data import F32, Arrays
from bench.harness.errors import Unsupported


def build(case: GpuCase, weights: Arrays, inputs: Sequence[F32], dy: F32, stepwise: bool) -> Running:
    """Raises `Unsupported` for what the CUDA backend does not have, and, stepwise, where it would run so anyway."""
    import cupy

    dtype = "float16" if case.precision == "float16" else "float32"
    layer = _layer(case, dtype)
    layer.load_params({f"layers.0.{name}": array.astype(dtype) for name, array in weights.items()})
    xs = [cupy.asarray(x.astype(dtype)) for x in inputs]
    gradient = cupy.asarray(dy.astype(dtype))
    plan = str(layer.plan(xs[0])).splitlines()[-1].strip()
    if stepwise and "stepwise" in plan:
        raise Unsupported("it runs stepwise by itself")

    def call(k: int) -> Any:
        with _stepwise_only() if stepwise else nullcontext():
            if case.kind == "forward":
                return layer(xs[k])[0]
            (y, _), vjp = layer.vjp(xs[k])
            vjp(gradient)
            return y

    def event() -> Any:
        made = cupy.cuda.Event()
        made.record()
        return made

    def launches() -> int:
        with _counted() as count:
            call(0)
        return count[0]

    return Running(
        call=call,
        to_numpy=lambda y: cupy.asnumpy(y).astype("float32"),
        event=event,
        milliseconds=cupy.cuda.get_elapsed_time,
        wait=cupy.cuda.get_current_stream().synchronize,
        plan="stepwise" if stepwise else plan,
        launches=launches,
    )


def _layer(case: GpuCase, dtype: str) -> Any:
    options: dict[str, Any] = {"dtype": dtype, "precision": "tf32" if case.precision == "tf32" else None}
    try:
        if case.cell == "lstm":
            return gpurnn.LSTM(case.hidden, case.hidden, **options)
        return gpurnn.GRU(case.hidden, case.hidden, reset_after=case.cell == "gru-after", **options)
    except NotImplementedError as error:
        raise Unsupported(str(error)) from None


@contextmanager
def _stepwise_only() -> Iterator[None]:
    """Nothing fits on the chip meanwhile."""
    from gpurnn_kernels.cuda import persistent

    plans = persistent.fit_forward, persistent.fit_backward

    def refuse(*_: object) -> persistent.Refusal:
        return persistent.Refusal("the bench asked for it")

    persistent.fit_forward = persistent.fit_backward = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        persistent.fit_forward, persistent.fit_backward = plans


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Counts launches and matrix products."""
    from gpurnn_kernels.cuda.host.cupy_device import CupyDevice

    count = [0]
    multiply, launcher = CupyDevice.multiply, CupyDevice.launcher

    def counting_multiply(self: Any, *args: Any, **options: Any) -> None:
        count[0] += 1
        multiply(self, *args, **options)

    def counting_launcher(self: Any, *args: Any, **options: Any) -> Any:
        launch = launcher(self, *args, **options)

        def run(*rest: Any) -> None:
            count[0] += 1
            launch(*rest)

        return run

    CupyDevice.multiply, CupyDevice.launcher = counting_multiply, counting_launcher  # type: ignore[method-assign]
    try:
        yield count
    finally:
        CupyDevice.multiply, CupyDevice.launcher = multiply, launcher  # type: ignore[method-assign]
