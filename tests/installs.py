"""Copies of the packages, whose machine code on disk tests spoil and change; and what processes that run them tell."""

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from helpers import end, finished, python, started

import gpurnn
import gpurnn_kernels

NAME = "gru_after_step"


class Install(NamedTuple):
    site: Path  # a copy of the packages
    cache: Path  # what it has filled
    y: list[Any]  # a result

    def kernel(self) -> Path:
        (path,) = self.cache.rglob(f"{NAME}-*.bin")
        return path


def fill(root: Path) -> Install:
    """Copies the packages, and fills a cache by a call."""
    for package in (gpurnn, gpurnn_kernels):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, root / "site" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    found = run(root / "site", root / "cache")
    assert told(found, "compiled")
    return Install(root / "site", root / "cache", found["y"])


def environment(site: Path, cache: Path | None) -> dict[str, str | None]:
    """None: no cache folder is named. A generic target compiles fastest."""
    folder = None if cache is None else str(cache)
    target = (
        {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""} if platform.machine().lower() in ("x86_64", "amd64") else {}
    )
    return {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": folder, "GPURNN_NUM_THREADS": "1", **target}


def run(site: Path, cache: Path | None, **more: str) -> dict[str, Any]:
    """How a process comes by a layer's kernels, and what the layer gives."""
    return _asked("cached", site, cache, (), "", more)


def kernel(site: Path, cache: Path | None, *arguments: str, prelude: str = "", **more: str) -> dict[str, Any]:
    """How a process comes by one kernel."""
    return _asked("kernel", site, cache, arguments, prelude, more)


def _asked(
    what: str, site: Path, cache: Path | None, arguments: tuple[str, ...], prelude: str, more: dict[str, str]
) -> dict[str, Any]:
    program = f"{prelude}\nimport sys; from programs import cache; cache.{what}(*sys.argv[1:])"
    found: dict[str, Any] = json.loads(python(program, *arguments, **environment(site, cache), **more))
    assert found["kernels"].startswith(str(site)), "the copy is what runs"
    return found


def at_once(what: str, count: int, site: Path, cache: Path) -> list[dict[str, Any]]:
    """Starts several processes together, and gives what each of them tells."""
    program = f"from programs import cache; cache.{what}()"
    processes = [started(program, **environment(site, cache)) for _ in range(count)]
    try:
        return [json.loads(finished(process, 240)) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                end(process)
                process.communicate()


def told(found: dict[str, Any], how: str) -> bool:
    return any(f"{how} {NAME}" in record for record in found["records"])


def warnings(found: dict[str, Any]) -> list[str]:
    return [record for record in found["records"] if record.startswith("WARNING")]


def replace(path: Path, old: str, new: str) -> None:
    """Changes a file, but neither its size nor its time stamps."""
    before = path.stat()
    text = path.read_text(encoding="utf-8")
    assert text.count(old) > 0
    assert len(old) == len(new)
    path.write_text(text.replace(old, new), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def kept(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.bin"))


CHANGE = "z * self.activations.tanh(n_)", "z * self.activations.tanh(z_)"  # of cells.py, of the same size
