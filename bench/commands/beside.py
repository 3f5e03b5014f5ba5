"""`python -m bench beside`: calls beside other work: busy processes, and libraries whose threads spin between calls.

Each scene runs in a process of its own. In it the default number of threads and one thread take turns, and PyTorch's own layer
where the scene has one. What counts is how much slower the default is than one thread, at the median and the 95th percentile.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness.errors import BenchError
from bench.harness.machine import describe

DEFAULT, ONE, PEER = "default", "one thread", "PyTorch"
CHILD_LIMIT_S = 300
Call = Callable[[], float | None]  # gives the seconds that count, or None where all of it does


@dataclass(frozen=True)
class Scene:
    """A scene to be timed: what `make` gives; `busy` processes run on `on`, the last CPU or all."""

    title: str
    make: Callable[[], dict[str, Call]]  # by who computes
    busy: int = 0
    on_last: bool = False
    pause: float = 0.0  # seconds between calls
    calls: int = 20  # of one kind in a turn


@dataclass(frozen=True)
class Times:
    """The times of one scene, milliseconds."""

    scene: str
    who: str
    median_ms: float
    p95_ms: float
    calls: int


def _both(call: Callable[[], float | None]) -> dict[str, Call]:
    """The same call with the default number of threads, and with one."""
    import gpurnn

    threads = gpurnn.get_num_threads()

    def with_threads(count: int) -> Call:
        def run() -> float | None:
            gpurnn.set_num_threads(count)
            return call()

        return run

    return {DEFAULT: with_threads(threads), ONE: with_threads(1)}


def _timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _x(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _stream() -> dict[str, Call]:
    import gpurnn

    stream, x, out = gpurnn.LSTM(128, 128, seed=0).stream(), _x(1, 128), np.empty((1, 128), np.float32)
    return _both(lambda: _timed(lambda: stream.step(x, out=out)))


def _row() -> dict[str, Call]:
    import gpurnn

    layer, x = gpurnn.LSTM(128, 128, seed=0), _x(50, 1, 128)
    return _both(lambda: _timed(lambda: layer(x)))


def _rows(rows: int, hidden: int) -> Callable[[], dict[str, Call]]:
    def make() -> dict[str, Call]:
        import gpurnn

        layer, x = gpurnn.LSTM(hidden, hidden, seed=0), _x(50, rows, hidden)
        return _both(lambda: _timed(lambda: layer(x)))

    return make


def _products(rows: int, *, train: bool = False) -> Callable[[], dict[str, Call]]:
    """A layer between NumPy's products, whose threads spin for a while after each; the layer's time counts."""

    def make() -> dict[str, Call]:
        import gpurnn

        layer, x, W = gpurnn.LSTM(256, 256, seed=0), _x(50, rows, 256), _x(256, 1024)

        def call() -> float:
            if train:
                begin = time.perf_counter()
                (y, _), vjp = layer.vjp(x)
                seconds = time.perf_counter() - begin
                dy = (y.reshape(-1, 256) @ W @ W.T).reshape(y.shape)
                return seconds + _timed(lambda: vjp(dy))
            begin = time.perf_counter()
            y, _ = layer(x)
            seconds = time.perf_counter() - begin
            y.reshape(-1, 256) @ W
            return seconds

        return _both(call)

    return make


def _replaced(*, train: bool = False) -> Callable[[], dict[str, Call]]:
    """A model of PyTorch, Linear, LSTM, Linear; with its LSTM replaced, and as it is."""

    def make() -> dict[str, Call]:
        import copy

        import torch

        from gpurnn.interop.torch import replace

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.last = torch.nn.Linear(256, 256), torch.nn.Linear(256, 256)
                self.lstm = torch.nn.LSTM(256, 256)

            def forward(self, x: Any) -> Any:
                return self.last(self.lstm(self.first(x))[0])

        torch.manual_seed(0)
        plain = Model()
        ours, x = copy.deepcopy(plain), torch.from_numpy(_x(50, 8, 256))
        replace(ours)

        def call_of(model: Any) -> Call:
            def call() -> None:
                if train:
                    model(x).sum().backward()
                else:
                    with torch.no_grad():
                        model(x)

            return call

        return {**_both(call_of(ours)), PEER: call_of(plain)}

    return make


def _onnx() -> dict[str, Call]:
    """A layer between calls of ONNX Runtime, whose threads spin as well."""
    import onnxruntime

    import gpurnn
    from bench.harness.cases import Case
    from bench.harness.data import all_weights
    from bench.peers.onnx_model import recurrent_model

    case = Case("lstm", hidden=256, batch=8, seq=50, input=256, threads=1)
    model = recurrent_model(case, all_weights(case), steps=50, state=False).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    layer, x = gpurnn.LSTM(256, 256, seed=0), _x(50, 8, 256)

    def call() -> float:
        session.run(None, {session.get_inputs()[0].name: x})
        return _timed(lambda: layer(x))

    return _both(call)


SCENES = {
    "step": Scene("stream.step 128 -> 128 every 10 ms, two busy processes", _stream, busy=2, pause=0.01, calls=10),
    "row": Scene("one row x 50 steps, two busy processes", _row, busy=2),
    "products-8": Scene("eight rows of LSTM(256) between NumPy products", _products(8)),
    "products-1": Scene("one row of LSTM(256) between NumPy products", _products(1)),
    "torch": Scene("Linear, LSTM, Linear of PyTorch, LSTM replaced", _replaced()),
    "products-train": Scene("training LSTM(256), eight rows, between NumPy products", _products(8, train=True), calls=10),
    "torch-train": Scene("training Linear, LSTM, Linear, LSTM replaced", _replaced(train=True), calls=10),
    "onnx": Scene("eight rows of LSTM(256) between ONNX Runtime's calls", _onnx),
    "slow-cpu": Scene("32 rows of LSTM(256), the last CPU at a third", _rows(32, 256), busy=2, on_last=True, calls=10),
    "slow-cpu-1": Scene("one row of LSTM(256), the last CPU at a third", _rows(1, 256), busy=2, on_last=True),
}


def _spin(parent: int, last: bool) -> None:
    if last:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    while os.getppid() == parent:
        sum(range(10_000))


@contextmanager
def _busy(count: int, last: bool) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_spin, args=(os.getpid(), last), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    if processes:
        time.sleep(1.0)  # until they are through with their imports
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _measure(name: str, seconds: float, to: Any) -> None:
    """In a process of its own: the times of a scene, in turns."""
    scene = SCENES[name]
    try:
        calls = scene.make()
    except ImportError as error:
        to.send(f"left out: {error}")
        return
    found: dict[str, list[float]] = {who: [] for who in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    with _busy(scene.busy, scene.on_last):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for who, call in calls.items():
                for _ in range(scene.calls):
                    begin = time.perf_counter()
                    counted = call()
                    found[who].append(time.perf_counter() - begin if counted is None else counted)
                    time.sleep(scene.pause)
    to.send(found)


def measure(name: str, seconds: float) -> list[Times] | str:
    """A scene's times by who computes, or why there are none."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure, args=(name, seconds, there))
    process.start()
    there.close()
    try:
        if not here.poll(CHILD_LIMIT_S + seconds):
            raise BenchError(f"{name}: no answer within {CHILD_LIMIT_S + seconds:.0f} s")
        found = here.recv()
    except EOFError:
        raise BenchError(f"{name}: the process has ended") from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        return found
    ms = {who: 1e3 * np.array(taken) for who, taken in found.items()}
    return [Times(name, who, float(np.median(t)), float(np.percentile(t, 95)), len(t)) for who, t in ms.items()]


def run(names: Sequence[str], seconds: float, path: Path, console: Console) -> int:
    """Exit status: 1 when something failed."""
    table = Table(title="Beside other work, milliseconds: median (95th percentile)", title_justify="left", box=box.SIMPLE)
    for column in ("", DEFAULT, ONE, PEER, "default / one", "of 95th"):
        table.add_column(column, justify="left" if not column else "right")
    rows: list[Times] = []
    errors: list[str] = []
    for name in names:
        try:
            found = measure(name, seconds)
        except BenchError as error:
            errors.append(str(error))
            continue
        if isinstance(found, str):
            console.print(f"{name}: {found}", highlight=False)
            continue
        rows += found
        by = {times.who: times for times in found}
        cells = [f"{by[who].median_ms:.3g} ({by[who].p95_ms:.3g})" if who in by else "" for who in (DEFAULT, ONE, PEER)]
        ratio, p95 = by[DEFAULT].median_ms / by[ONE].median_ms, by[DEFAULT].p95_ms / by[ONE].p95_ms
        table.add_row(SCENES[name].title, *cells, f"{ratio:.2f}", f"{p95:.2f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"bench": "beside", "machine": describe(), "rows": [asdict(times) for times in rows], "errors": errors}
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(table)
    for text in errors:
        console.print(f"[red]error: {text}[/red]", highlight=False)
    return bool(errors)
