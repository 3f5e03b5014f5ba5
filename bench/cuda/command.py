"""`python -m bench cuda`: the CUDA backend against PyTorch and cuDNN. Where no GPU is, it says so and that is no failure."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.cuda.grid import grid
from bench.harness.machine import ROOT

SECONDS = 450.0  # of a whole run: tests and grid
TEST_SECONDS = 270


def why_not() -> str | None:
    """Why nothing can be measured on a GPU here; None when one is there."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error)
    return None if count else "CUDA reports no device"


def run(console: Console, name: str, sample: float, everything: bool, out: Path) -> int:
    """Exit status: 0 without a GPU; 1 for an error, a wrong answer or, with `everything`, a failed test."""
    reason = why_not()
    if reason is not None:
        console.print(f"no GPU here ({reason}): nothing to measure", highlight=False)
        return 0
    begin = time.perf_counter()
    failed = run_tests(console, out) if everything else 0
    from bench.cuda.contest import measure

    path = out / "cuda.json"
    report = measure(grid("full" if everything else name), sample, SECONDS - (time.perf_counter() - begin), path, console)
    with (out / "cuda.txt").open("w", encoding="utf-8") as file:
        for target in (console, Console(file=file, width=console.width)):
            show(target, report)
    try:
        from bench.cuda.figure import draw
    except ImportError as error:
        console.print(f"no figure without matplotlib ({error})", highlight=False)
    else:
        draw(report.rows, str(report.gpu["name"]), out / "cuda.png")
    console.print(f"written: {out}", highlight=False, soft_wrap=True)
    return int(bool(failed or report.errors or not report.rows))


def run_tests(console: Console, out: Path) -> int:
    """The tests that need a GPU; their output goes to a file."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", str(ROOT / "tests")]
    with (out / "tests.txt").open("w", encoding="utf-8") as file:
        try:
            status = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=TEST_SECONDS).returncode
        except subprocess.TimeoutExpired:
            file.write(f"\nstopped after {TEST_SECONDS} s\n")
            status = 1
    lines = (out / "tests.txt").read_text(encoding="utf-8").strip().splitlines()
    console.print(f"tests on the GPU: {lines[-1] if lines else 'no output'}", highlight=False)
    return status


def show(console: Console, report: object) -> None:
    """The rows as a table, then what is missing and what failed."""
    from bench.cuda.contest import GpuReport

    assert isinstance(report, GpuReport)
    table = Table(title=f"{report.gpu['name']}: median between events", title_justify="left", box=box.SIMPLE)
    for head in ("kind", "cell", "H", "B", "precision", "by", "ms", "µs a step", "host ms", "launches", "ratio", "plan"):
        table.add_column(head, justify="right" if head in ("H", "B", "ms", "µs a step", "host ms", "launches") else "left")
    for row in report.rows:
        case, times = row.case, row.times
        table.add_row(
            *(case.kind, case.cell, str(case.hidden), str(case.batch), case.precision, row.implementation),
            *(f"{times.ms:.3f}", f"{row.us_per_step:.2f}", f"{times.host_ms:.3f}"),
            *("-" if row.launches is None else str(row.launches), "-" if row.ratio is None else f"{row.ratio:.2f}", row.plan),
        )
    console.print(table)
    if report.skipped:
        console.print(f"{report.skipped} cases left out: the time was up")
    for name, reason in report.missing.items():
        console.print(f"left out: {name}: {reason}", highlight=False)
    for error in report.errors:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
