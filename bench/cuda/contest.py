"""Every case on the GPU that is there: right answers first, then times, then one row an implementation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.cuda import ours, pytorch
from bench.cuda.grid import GpuCase
from bench.cuda.running import INPUTS, Running, Times, time_calls
from bench.harness.data import F32, Arrays, output_gradient, weights
from bench.harness.errors import BenchError, Missing, Unsupported
from bench.harness.machine import describe
from bench.peers.numpy import Loop

OURS, STEPWISE, TORCH = "gpurnn", "gpurnn-stepwise", "torch"
CHECKED_ROWS = 4
TOLERANCES = {"float32": 1e-4, "tf32": 2e-2, "float16": 2e-2}


@dataclass(frozen=True)
class GpuRow:
    case: GpuCase
    implementation: str
    plan: str
    times: Times
    us_per_step: float
    launches: int | None  # and matrix products, of one call
    ratio: float | None = None  # PyTorch's ms / ours


@dataclass
class GpuReport:
    """The findings of a run, as they are written to the JSON file."""

    gpu: dict[str, object]
    machine: dict[str, object] = field(default_factory=describe)
    missing: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    skipped: int = 0  # cases that the time did not reach
    rows: list[GpuRow] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """All of it, at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(asdict(self), indent=1) + "\n")
        part.replace(path)


def measure(cases: Sequence[GpuCase], sample: float, budget: float, path: Path, console: Console) -> GpuReport:
    """budget: seconds for all cases; what does not fit is counted, not measured. The file is written after every case."""
    report = GpuReport(describe_gpu())
    end = time.perf_counter() + budget
    for place, case in enumerate(cases, 1):
        if time.perf_counter() > end:
            report.skipped = len(cases) - place + 1
            break
        rows = with_ratios(contest(case, sample, report))
        report.rows += rows
        report.write(path)
        line = "  ".join(f"{row.implementation} {row.times.ms:.3f}" for row in rows) or "nothing to show"
        console.print(f"{place}/{len(cases)} {case}: {line} ms", highlight=False)
    report.write(path)
    return report


def contest(case: GpuCase, sample: float, report: GpuReport) -> list[GpuRow]:
    """Times all that take part: the unsupported and missing are left out, a failure or a wrong answer is an error."""
    arrays = weights(case.case)
    rng = np.random.default_rng([7, case.hidden, case.batch])
    inputs = [rng.standard_normal((case.seq, case.batch, case.hidden), dtype=np.float32) for _ in range(INPUTS)]
    dy = output_gradient(case.case)
    expected = _expected(case, arrays, inputs[0])
    builders: dict[str, Callable[[], Running]] = {
        OURS: lambda: ours.build(case, arrays, inputs, dy, stepwise=False),
        STEPWISE: lambda: ours.build(case, arrays, inputs, dy, stepwise=True),
        TORCH: lambda: pytorch.build(case, arrays, inputs, dy),
    }
    rows = []
    for name, build in builders.items():
        try:
            running = build()
            _check(name, running.to_numpy(running.call(0))[:, :CHECKED_ROWS], expected, TOLERANCES[case.precision])
            launches = running.launches and running.launches()
            times = time_calls(running, sample)
            rows.append(GpuRow(case, name, running.plan, times, 1e3 * times.ms / case.seq, launches))
        except Unsupported:
            continue
        except Missing as missing:
            report.missing[name] = str(missing)
        except Exception as error:  # a kernel that does not compile, launch or fit: the others go on
            report.errors.append(f"{case}: {name}: {type(error).__name__}: {' '.join(str(error).split())}")
    return rows


def with_ratios(rows: Sequence[GpuRow]) -> list[GpuRow]:
    theirs = next((row.times.ms for row in rows if row.implementation == TORCH), None)
    return [
        GpuRow(**{**vars(row), "ratio": theirs / row.times.ms if theirs and row.implementation != TORCH else None})
        for row in rows
    ]


def _expected(case: GpuCase, arrays: Arrays, x: F32) -> F32:
    """(T, some rows, H), in float64; in half precision, of the weights and inputs as they are stored."""
    rows = x[:, :CHECKED_ROWS]
    if case.precision == "float16":
        arrays = {name: array.astype(np.float16).astype(np.float32) for name, array in arrays.items()}
        rows = rows.astype(np.float16).astype(np.float32)
    y: F32 = Loop(case.case, arrays, np.float64).forward(rows)[0]
    return y


def _check(name: str, received: F32, expected: F32, tolerance: float) -> None:
    if received.shape != expected.shape:
        raise BenchError(f"shape {received.shape}, expected {expected.shape}")
    off = float(np.max(np.abs(received - expected)))
    if not off <= tolerance:
        raise BenchError(f"wrong answer, off by {off:.2e} (allowed: {tolerance:g})")


def describe_gpu() -> dict[str, object]:
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "name": properties["name"].decode(),
        "compute_capability": cupy.cuda.Device().compute_capability,
        "multiprocessors": properties["multiProcessorCount"],
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }
