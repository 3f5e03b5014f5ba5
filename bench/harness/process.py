"""The parent's side of a worker: starts it with its thread counts, commands it, and gives up on it in time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from bench.harness.errors import BenchError, Missing, Unsupported
from bench.harness.worker import serve

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "GPURNN_NUM_THREADS",
)
START_LIMIT_S = 120.0
REPLY_LIMIT_S = 900.0  # the largest model takes two minutes a call on one thread
STOP_LIMIT_S = 5.0


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables for a child that starts inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Worker:
    """One implementation in a process of its own; raises `Missing` when it is not installed."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, threads), daemon=True)
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(threads))):
            self._process.start()
        theirs.close()
        try:
            self._reply("start", START_LIMIT_S)
        except (BenchError, Missing):
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """False after a crash or a time-out."""
        return self._process.is_alive()

    def call(self, command: str, *arguments: Any) -> Any:
        """Sends one command and waits for its answer; raises `BenchError` or `Unsupported`."""
        try:
            self._pipe.send((command, arguments))
        except OSError:
            raise BenchError(f"{self.name}: the process has ended") from None
        return self._reply(command, REPLY_LIMIT_S)

    def _reply(self, command: str, limit: float) -> Any:
        if not self._pipe.poll(limit):
            self.close()
            raise BenchError(f"{self.name}: no answer to {command!r} within {limit:.0f} s")
        try:
            outcome, value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(STOP_LIMIT_S)
            raise BenchError(f"{self.name}: the process died in {command!r}, exit {self._process.exitcode}") from None
        if outcome == "missing":
            raise Missing(value)
        if outcome == "unsupported":
            raise Unsupported(value)
        if outcome == "error":
            raise BenchError(f"{self.name}: {value}")
        return value

    def close(self) -> None:
        """Ends the process, kindly first."""
        self._pipe.close()
        self._process.join(STOP_LIMIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
