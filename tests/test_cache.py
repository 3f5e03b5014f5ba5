"""Machine code on disk: it never outlives a change of its sources, and no state of the disk keeps a call from working."""

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import end, finished, python, started

import gpurnn
import gpurnn_kernels

PROGRAM = "import programs; programs.cached()"
NAME = "gru_after_step"


class Install(NamedTuple):
    site: Path  # a copy of the packages
    cache: Path  # what it has filled
    y: list[Any]  # a result

    def kernel(self) -> Path:
        (path,) = self.cache.rglob(f"{NAME}-*.bin")
        return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Install:
    root = tmp_path_factory.mktemp("install")
    for package in (gpurnn, gpurnn_kernels):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, root / "site" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    found = run(root / "site", root / "cache")
    assert told(found, "compiled")
    return Install(root / "site", root / "cache", found["y"])


@pytest.fixture
def install(filled: Install, tmp_path: Path) -> Install:
    """A copy for one test."""
    site, cache = (Path(shutil.copytree(path, tmp_path / path.name)) for path in filled[:2])
    return filled._replace(site=site, cache=cache)


def environment(site: Path, cache: Path | None) -> dict[str, str | None]:
    """None: no cache folder is named. A generic target compiles fastest."""
    folder = None if cache is None else str(cache)
    target = (
        {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""} if platform.machine().lower() in ("x86_64", "amd64") else {}
    )
    return {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": folder, "GPURNN_NUM_THREADS": "1", **target}


def run(site: Path, cache: Path | None, **more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(python(PROGRAM, **environment(site, cache), **more))
    for name in ("gpurnn", "kernels"):
        assert found[name].startswith(str(site)), "the copy is what runs"
    return found


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


def test_machine_code_is_kept_and_found_again(install: Install) -> None:
    before = {path: path.stat().st_mtime_ns for path in (install.cache).rglob("*.bin")}
    found = run(install.site, install.cache)
    assert told(found, "loaded")
    assert not told(found, "compiled")
    assert not warnings(found)
    assert {path: path.stat().st_mtime_ns for path in (install.cache).rglob("*.bin")} == before
    assert Path(found["folder"]) == install.cache / "gpurnn"


def test_it_never_outlives_a_change_of_a_source(install: Install) -> None:
    """A change that numba's own cache would not see: in another file, of the same size and age."""
    site, cache, _ = install
    change = site / "gpurnn_kernels" / "cells.py", "sigmoid(z_) * (tanh(n_) - h_prev)", "sigmoid(z_) * (tanh(z_) - h_prev)"
    replace(*change)
    second = run(site, cache)
    assert told(second, "compiled")
    assert second["y"] != install.y
    replace(change[0], change[2], change[1])
    third = run(site, cache)
    assert told(third, "loaded")
    assert third["y"] == install.y


def test_an_install_that_cannot_be_written_to(install: Install, tmp_path: Path) -> None:
    """Here nobody, not even root, can make the folder beside the kernels: a file is in its place."""
    (install.site / "gpurnn_kernels" / "__pycache__").write_text("")
    home = tmp_path / "home"
    found = run(install.site, None, HOME=str(home), XDG_CACHE_HOME=str(home / "cache"), LOCALAPPDATA=str(home))
    assert told(found, "compiled")
    assert not warnings(found)
    assert Path(found["folder"]).is_relative_to(home)
    assert any(Path(found["folder"]).glob(f"{NAME}-*"))


def test_no_folder_that_can_be_written_to(install: Install, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    found = run(install.site, in_the_way)
    assert found["folder"] is None
    assert told(found, "compiled")
    assert len(warnings(found)) == 1


@pytest.mark.parametrize("damage", ["truncated", "a folder"])
def test_damaged_files_are_compiled_again(damage: str, install: Install) -> None:
    path = install.kernel()
    data = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(data[: len(data) // 2])
    found = run(install.site, install.cache)
    assert told(found, "compiled")
    assert any(NAME in warning for warning in warnings(found))
    assert found["y"] == install.y
    if damage != "a folder":
        again = run(install.site, install.cache)
        assert told(again, "loaded")
        assert again["y"] == install.y
        assert not warnings(again)


def test_two_processes_compile_at_once(install: Install) -> None:
    shutil.rmtree(install.cache)
    processes = [started(PROGRAM, **environment(install.site, install.cache)) for _ in range(2)]
    try:
        found = [json.loads(finished(process, 240)) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                end(process)
                process.communicate()
    again = run(install.site, install.cache)
    assert [one["y"] for one in (*found, again)] == [install.y] * 3
    assert told(again, "loaded")
    assert not any(map(warnings, (*found, again)))
    assert not list(install.cache.rglob("*.tmp"))


def test_symbols_tell_the_types_apart_in_every_process() -> None:
    """Numba numbers records as a process meets them: helper functions of two element types, compiled by two processes, would
    share a symbol, and one would run in the place of the other when a third process loads both from the cache."""
    program = """
import json
from numba.core import types
from numba.core.itanium_mangler import mangle
others = [types.Opaque(f"met before {k}") for k in range(%d)]
from gpurnn_kernels.cpu.job import WORK_POINTER, job_pointer
print(json.dumps([mangle("helper", [job_pointer(one).dtype, WORK_POINTER.dtype]) for one in ("float32", "float64")]))
"""
    names = json.loads(python(program % 0))
    assert len(set(names)) == 2
    assert json.loads(python(program % 7)) == names
