"""`gpurnn info`: the parts of this installation, and the machine that it will run on."""

import argparse
from pathlib import Path

from .console import say
from .parser import Commands, command


def add(commands: Commands) -> None:
    command(commands, run, "info", "versions, CPU, threads, GPU and the kernels' cache")


def run(args: argparse.Namespace) -> None:
    found = facts()
    width = max(map(len, found))
    for name, value in found.items():
        say(f"{name:{width}}  {value}")


def facts() -> dict[str, str]:
    """Gives each line's name and text."""
    import platform
    from importlib.metadata import version

    import gpurnn
    from gpurnn_kernels.cpu.codegen.cache import cache_folder
    from gpurnn_kernels.cpu.codegen.target import target

    from . import gpu

    cpu = target()
    missing = gpu.missing()
    found = {
        "gpurnn": f"{gpurnn.__version__}, in {Path(gpurnn.__file__).parent}",
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})",
        **{name: version(name) for name in ("numpy", "numba", "llvmlite")},
        "CPU": cpu_name(),
        "kernels for": f"{cpu}: {cpu.lanes(4)} float32 or {cpu.lanes(8)} float64 lanes, {cpu.registers} registers",
        "threads": str(gpurnn.get_num_threads()),
        "GPU": gpu.name() if missing is None else f"none: {missing}",
        "kernel cache": str(cache_folder() or "none: no folder can be written to"),
    }
    if mixed := mixture():
        found["warning"] = mixed
    return found


def mixture() -> str | None:
    """Tells that `gpurnn` and `gpurnn_kernels` come from two installations or checkouts; None if they come from one."""
    import gpurnn
    import gpurnn_kernels

    upper, lower = (Path(str(package.__file__)).resolve().parents[1] for package in (gpurnn, gpurnn_kernels))
    if lower in (upper, upper / "kernels"):
        return None
    return f"gpurnn comes from {upper}, but gpurnn_kernels from {lower}: two different installations"


def cpu_name() -> str:
    """Gives the processor's name, its maker's where the system tells it."""
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
