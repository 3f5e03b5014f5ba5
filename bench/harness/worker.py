"""The child process that serves one implementation: builds, answers for checking, and times when told to.

Nothing is imported here but what the commands need, after the parent has set the thread counts in the environment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from bench.harness import data, timing
from bench.harness.cases import OURS, Case, precision_of
from bench.harness.errors import Missing, Unsupported
from bench.peers import Peer, load

if TYPE_CHECKING:
    from bench.limits.clock import Clock

BOUNDED = "infer", "step"  # kinds whose time is held against the roofline
CHECKED_STEPS = 16  # of a stream, so that a state which is not kept is found out


def checked_case(kind: str, case: Case) -> Case:
    """The case that is run to check the answer: a step is timed alone, and checked over several."""
    return replace(case, seq=CHECKED_STEPS) if kind == "step" else case


class Server:
    """The commands, one public method each."""

    def __init__(self, name: str, threads: int) -> None:
        self._precision = precision_of(name)
        self._peer: Peer = load(name.removesuffix(f"-{self._precision}"))
        self._peer.set_threads(threads)
        self._case: Case | None = None
        self._weights: data.Layers = ()
        self._calls: dict[str, Callable[[], object]] = {}
        self._clock: Clock | None = None
        if name == OURS:
            from bench.limits.clock import Clock

            self._clock = Clock()

    def version(self) -> str:
        """The package's version."""
        return self._peer.version()

    def build(self, kind: str, case: Case) -> Any:
        """Builds and gives the answer to check: y for `infer` and `step`, gradients for `train` and `train-reload`.

        A new case drops what was built for the one before.
        """
        if case != self._case:
            self._calls.clear()
            self._case, self._weights = case, data.all_weights(case)
        x = data.sequence(checked_case(kind, case))
        if kind == "infer":
            run = self._peer.build(case, self._weights, self._precision)
            self._calls[kind] = lambda: run(x)
            return run(x)
        if kind == "step":
            step = self._peer.build_step(case, self._weights, self._precision)
            x_t = x[0].copy()
            self._calls[kind] = lambda: step(x_t)
            return data.stack(step(row) for row in x)
        dy = data.output_gradient(case)
        train = self._peer.build_train(case, self._weights[0][0], reload=kind == "train-reload")
        self._calls[kind] = lambda: train(x, dy)
        return self._peer.in_our_layout(case, train(x, dy))

    def sample(self, kind: str, budget: float) -> tuple[timing.Sample, float]:
        """Times what `build` built, then rests until this process's threads are quiet.

        Gives also the CPU seconds that all of it took.
        """
        cpu = time.process_time()
        call, case = self._calls[kind], self._case
        result = timing.time_calls(call, budget)
        if self._clock and case and kind in BOUNDED:
            part = (case.stream_bytes if kind == "step" else case.recurrent_bytes) // case.threads
            result = replace(result, flops=self._clock.flops(call), reading=self._clock.bytes(call, part))
        timing.rest_until_quiet()
        return result, time.process_time() - cpu

    def rest(self) -> float:
        """Seconds waited until this process's threads were quiet."""
        return timing.rest_until_quiet()


class Reference:
    """The float64 answers, of the plain NumPy loop."""

    def __init__(self, name: str, threads: int) -> None:
        from bench.peers import numpy

        numpy.set_threads(threads)
        self._numpy = numpy

    def sequence(self, case: Case, rows: list[int]) -> data.F32:
        """y (T, len(rows), D*H) of some rows of the batch."""
        return self._numpy.reference(case, data.all_weights(case), data.sequence(case), rows)

    def gradients(self, case: Case) -> data.Arrays:
        """The gradients of the whole batch."""
        arguments = data.weights(case), data.sequence(case), data.output_gradient(case)
        return self._numpy.reference_gradients(case, *arguments)

    def rest(self) -> float:
        """Seconds waited until this process's threads were quiet."""
        return timing.rest_until_quiet()


class Machine:
    """The machine's limits."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = threads

    def limits(self) -> tuple[Any, float]:
        """Measured for this process's thread count, then rests; gives also the CPU seconds that it took."""
        from bench.limits.measure import measure

        cpu = time.process_time()
        result = measure(self._threads)
        timing.rest_until_quiet()
        return result, time.process_time() - cpu


SERVERS: dict[str, Callable[[str, int], object]] = {"reference": Reference, "machine": Machine}


def serve(pipe: Connection, name: str, threads: int) -> None:
    """Answers (command, arguments) with (outcome, value) until the parent closes the pipe."""
    try:
        server = SERVERS.get(name, Server)(name, threads)
        pipe.send(("ok", None))
    except Missing as missing:
        pipe.send(("missing", str(missing)))
        return
    except Exception as error:
        pipe.send(("error", one_line(error)))
        return
    while True:
        try:
            command, arguments = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            reply = ("ok", getattr(server, command)(*arguments))
        except Unsupported as unsupported:
            reply = ("unsupported", str(unsupported))
        except KeyboardInterrupt:
            return
        except Exception as error:
            reply = ("error", one_line(error))
        pipe.send(reply)


def one_line(error: Exception) -> str:
    """The kind of an error and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no text'])[0]}"
