"""Machine code on disk: it never outlives a change of its sources, and is compiled again where anything is wrong with it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import end, python, started
from installs import CHANGE, NAME, Install, at_once, environment, kept, kernel, replace, run, told, warnings

from gpurnn_kernels.cpu.codegen import cache
from gpurnn_kernels.cpu.codegen import cache_files as files


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
    change = site / "gpurnn_kernels" / "cells.py", *CHANGE
    replace(*change)
    second = run(site, cache)
    assert told(second, "compiled")
    assert second["y"] != install.y
    replace(change[0], change[2], change[1])
    third = run(site, cache)
    assert told(third, "loaded")
    assert third["y"] == install.y


@pytest.mark.parametrize("damage", ["truncated", "empty", "a bit", "zeros", "another kernel's", "a folder"])
def test_damaged_files_are_compiled_again(damage: str, install: Install) -> None:
    """Damaged machine code would end the process."""
    path = install.kernel()
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "another kernel's":
        shutil.copyfile(next(install.cache.rglob("gru_after_project-*.bin")), path)
    elif damage == "a bit":
        data[half] ^= 4
        path.write_bytes(data)
    elif damage == "zeros":
        path.write_bytes(data[:half] + bytes(512) + data[half + 512 :])
    else:
        path.write_bytes(data[: half if damage == "truncated" else 0])
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
    found = at_once("cached", 2, install.site, install.cache)
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
from gpurnn_kernels.cpu.codegen.descriptors import SHARE_POINTER, job_pointer
print(json.dumps([mangle("helper", [job_pointer(one).dtype, SHARE_POINTER.dtype]) for one in ("float32", "float64")]))
"""
    names = json.loads(python(program % 0))
    assert len(set(names)) == 2
    assert json.loads(python(program % 7)) == names


# What machine code is named by


@pytest.mark.parametrize("how", ["files", "archive", "frozen"])
def test_versions_have_digests_of_their_own(how: str, filled: Install, tmp_path: Path) -> None:
    """However modules are imported: two versions differ, and two processes of one agree."""
    site = Path(shutil.copytree(filled.site, tmp_path / "site"))

    def digest() -> str:
        path, program = site, "from programs import cache; cache.digest()"
        if how == "archive":
            path = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", site))
        elif how == "frozen":
            path, program = tmp_path, f"from programs import cache; cache.frozen({str(site)!r}, 'lists', 'digest')"
        found = json.loads(python(program, PYTHONPATH=str(path), PYTHONHASHSEED=None))
        assert isinstance(found, str)
        return found

    first = digest()
    assert digest() == first
    replace(site / "gpurnn_kernels" / "cells.py", *CHANGE)
    assert digest() != first


def test_modules_that_cannot_be_read_have_no_machine_code_on_disk(filled: Install, tmp_path: Path) -> None:
    program = f"from programs import cache; cache.frozen({str(filled.site)!r}, 'lists not', 'kernel')"
    found = json.loads(python(program, **environment(tmp_path, tmp_path / "cache")))
    assert told(found, "compiled")
    assert not kept(tmp_path)
    assert len(warnings(found)) == 1


@pytest.mark.parametrize("when", ["before", "during"])
def test_an_upgrade_while_a_process_imports_or_compiles(when: str, install: Install) -> None:
    """Its machine code may be of either version, so it is neither loaded nor kept under either name."""
    path = install.kernel()
    if when == "during":
        path.unlink()
    before = kept(install.cache)
    found = kernel(install.site, install.cache, str(install.site / "gpurnn_kernels" / "cells.py"), when)
    assert told(found, "compiled")
    assert kept(install.cache) == before
    assert not warnings(found)


# Several processes


def test_processes_that_start_at_once_compile_once(filled: Install, tmp_path: Path) -> None:
    found = at_once("kernel", 3, filled.site, tmp_path)
    assert sorted(told(one, "compiled") for one in found) == [False, False, True]
    assert not any(map(warnings, found))


@pytest.mark.skipif(os.name == "nt", reason="no such locks")
def test_a_lock_is_waited_for_in_bounds_and_dies_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = started(f"from programs import cache; cache.hold({str(tmp_path)!r})")
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        monkeypatch.setattr(files._Wait, "seconds", 0.3)
        with files.alone(tmp_path, "another kernel"):
            assert files._Wait.seconds > 0, "a lock of its own"
        with files.alone(tmp_path, "kernel"):
            assert files._Wait.seconds == 0, "waited in vain, once and for all"
    finally:
        end(owner)
        owner.communicate()
    monkeypatch.setattr(files._Wait, "seconds", 30.0)
    with files.alone(tmp_path, "kernel"):
        assert files._Wait.seconds > 0


def test_a_long_first_call_says_once_what_it_does(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 0.5, 1.5, 2.5])
    monkeypatch.setattr(cache.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cache._Compiling, "since", None)
    monkeypatch.setattr(cache._Compiling, "told", False)
    with caplog.at_level("INFO", "gpurnn"):
        for expected in (0, 0, 1, 1):
            cache._announce()
            assert len(caplog.messages) == expected
    assert "compiling kernels, kept in" in caplog.text
