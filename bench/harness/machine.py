"""The machine that the figures were measured on."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("gpurnn", "numba", "llvmlite", "numpy", "torch", "onnxruntime", "openvino", "onnx")
TOO_BUSY = 0.25  # CPUs
ROOT = Path(__file__).resolve().parents[2]


def cpu_count() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def caches() -> dict[str, str]:
    """Cache sizes as the first CPU sees them, such as {"L2": "1024K"}; empty where the system does not tell."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def packages() -> dict[str, str]:
    """Versions of what is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The checkout's commit, with `+` when its Python files have changed since."""
    try:
        git = ("git", "-C", str(ROOT))
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "*.py"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "")


def installed(package: str) -> bool:
    """True if it can be imported; a bare folder of that name in the current one does not count."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def mixed_halves() -> str | None:
    """A warning when `gpurnn` and `gpurnn_kernels` come from different roots (an installed and a checked-out half)."""
    roots = []
    for name in ("gpurnn", "gpurnn_kernels"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return None
        roots.append(Path(spec.origin).resolve().parent.parent)
    ours, kernels = roots
    if kernels in (ours, ours / "kernels"):
        return None
    return f"gpurnn comes from {ours} but gpurnn_kernels from {kernels}: install the checkout with pip install -e ."


def describe() -> dict[str, object]:
    """The machine and its software, for the JSON file."""
    from gpurnn_kernels.cpu.codegen.target import target

    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": cpu_model(),
        "cpus": cpu_count(),
        "caches": caches(),
        "target": str(target()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages(),
        "commit": commit(),
    }


def busy_seconds() -> float | None:
    """CPU seconds used on the whole machine since it started, other guests' share included; None where not known."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in first[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Others:
    """CPUs that everything but one process keeps busy, from here on."""

    def __init__(self) -> None:
        self._busy, self._begin = busy_seconds(), time.perf_counter()

    def cpus(self, own: float) -> float:
        """`own`: CPU seconds that the process itself used meanwhile. 0 where the system does not tell."""
        busy, wall = busy_seconds(), time.perf_counter() - self._begin
        if busy is None or self._busy is None:
            return 0.0
        return max(0.0, (busy - self._busy - own) / wall)


def disturbed(others: float, threads: int) -> bool:
    """True if the others took more than the CPUs that `threads` threads leave free, by more than a quarter of one."""
    return others > max(0, (os.cpu_count() or 1) - threads) + TOO_BUSY
