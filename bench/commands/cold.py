"""`python -m bench cold`: what the first call costs, in fresh processes.

Import; the first call with an empty Numba cache; the first call with the cache that this filled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness.errors import BenchError
from bench.harness.machine import describe, installed
from bench.harness.timing import spread

IMPORTS = ("numpy", "numba", "gpurnn")
LAYERS = {
    "lstm": "gpurnn.LSTM(64, 64)",
    "gru": "gpurnn.GRU(64, 64)",
    "gru-after": "gpurnn.GRU(64, 64, reset_after=True)",
}
CHILD_LIMIT_S = 300

_IMPORT = """
import time
begin = time.perf_counter()
import {package}
print(time.perf_counter() - begin)
"""
_CALLS = """
import json, time
import numpy as np
import gpurnn
x = np.zeros((64, 8, 64), np.float32)
begin = time.perf_counter()
layer = {layer}
layer(x)
called = time.perf_counter()
layer.vjp(x)[1](x)
print(json.dumps([called - begin, time.perf_counter() - called]))
"""


@dataclass(frozen=True)
class Cold:
    """Seconds, median over fresh processes."""

    what: str
    seconds: float
    spread: float  # (largest - smallest) / median


def _child(code: str, cache: Path | None = None) -> str:
    environment = dict(os.environ)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=CHILD_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"a fresh process gave no answer within {CHILD_LIMIT_S} s") from None
    if done.returncode:
        raise BenchError(f"a fresh process failed: {(done.stderr.strip().splitlines() or ['no text'])[-1]}")
    return done.stdout.strip().splitlines()[-1]


def _cold(what: str, seconds: Sequence[float]) -> Cold:
    return Cold(what, median(seconds), spread(seconds))


def imports(rounds: int) -> list[Cold]:
    """Import times; the first process of each, which warms the system's file cache, is not counted."""
    found = []
    for package in IMPORTS:
        code = _IMPORT.format(package=package)
        seconds = [float(_child(code)) for _ in range(rounds + 1)][1:]
        found.append(_cold(f"import {package}", seconds))
    return found


def first_calls(cell: str, rounds: int) -> list[Cold]:
    """Times the first calls of one cell: T = 64, B = 8, I = H = 64, float32."""
    code = _CALLS.format(layer=LAYERS[cell])
    empty: list[list[float]] = []
    filled: list[list[float]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder)
            empty.append(json.loads(_child(code, cache)))
            if not any(path.is_file() for path in cache.rglob("*")):
                raise BenchError("nothing was written to NUMBA_CACHE_DIR: these would not be cold figures")
            filled.append(json.loads(_child(code, cache)))
    found = []
    for state, runs in (("empty cache", empty), ("filled cache", filled)):
        found.append(_cold(f"{cell}, layer and first call, {state}", [run[0] for run in runs]))
        found.append(_cold(f"{cell}, first vjp after it, {state}", [run[1] for run in runs]))
    return found


def run(cells: Sequence[str], rounds: int, path: Path, console: Console) -> int:
    """Exit status: 1 when something failed."""
    if not installed("gpurnn"):
        raise BenchError("gpurnn is not installed: pip install -e .")
    found: list[Cold] = []
    errors: list[str] = []
    try:
        found += imports(rounds)
        for cell in cells:
            found += first_calls(cell, rounds)
    except BenchError as error:
        errors.append(str(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"bench": "cold", "machine": describe(), "rows": [asdict(cold) for cold in found], "errors": errors}
    path.write_text(json.dumps(report, indent=1) + "\n")
    table = Table(title="Cold start, seconds", title_justify="left", header_style="bold", box=box.SIMPLE)
    table.add_column("")
    table.add_column("median ± half the range", justify="right")
    for cold in found:
        table.add_row(cold.what, f"{cold.seconds:.3g} ±{50 * cold.spread:.0f}%")
    console.print(table)
    for text in errors:
        console.print(f"[red]error: {text}[/red]", highlight=False)
    return bool(errors)
