"""Machine code on disk: it never outlives a change of its sources, and no state of the disk keeps a call from working."""

import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import end, finished, python, started

import gpurnn
import gpurnn_kernels
from gpurnn_kernels.cpu.codegen import cache
from gpurnn_kernels.cpu.codegen import cache_files as files
from gpurnn_kernels.cpu.codegen import cache_folders as trust

PROGRAM = "from programs import processes; processes.cached()"
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
    change = site / "gpurnn_kernels" / "cells.py", *CHANGE
    replace(*change)
    second = run(site, cache)
    assert told(second, "compiled")
    assert second["y"] != install.y
    replace(change[0], change[2], change[1])
    third = run(site, cache)
    assert told(third, "loaded")
    assert third["y"] == install.y


def test_an_install_that_cannot_be_written_to(install: Install, tmp_path: Path) -> None:
    """Here nobody, not even root, can make the folder beside the packages: a file is in its place."""
    (install.site / "__pycache__").write_text("")
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
    assert str(in_the_way) in warnings(found)[0]
    assert "NUMBA_CACHE_DIR" in warnings(found)[0]


@pytest.mark.parametrize("damage", ["truncated", "empty", "a bit", "zeros", "another kernel's", "a folder"])
def test_damaged_files_are_compiled_again(damage: str, install: Install) -> None:
    """What is wrong in machine code would end the process."""
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
from gpurnn_kernels.cpu.codegen.descriptors import SHARE_POINTER, job_pointer
print(json.dumps([mangle("helper", [job_pointer(one).dtype, SHARE_POINTER.dtype]) for one in ("float32", "float64")]))
"""
    names = json.loads(python(program % 0))
    assert len(set(names)) == 2
    assert json.loads(python(program % 7)) == names


# What machine code is named by


def kernel(site: Path, cache: Path | None, *arguments: str, prelude: str = "", **more: str) -> dict[str, Any]:
    """How a process comes by one kernel."""
    program = f"{prelude}\nimport sys; from programs import cache; cache.kernel(*sys.argv[1:])"
    found: dict[str, Any] = json.loads(python(program, *arguments, **environment(site, cache), **more))
    assert found["kernels"].startswith(str(site)), "the copy is what runs"
    return found


def kept(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.bin"))


CHANGE = "z * self.activations.tanh(n_)", "z * self.activations.tanh(z_)"


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
    """What it compiles may be of either version: it is neither loaded nor kept, under the name of neither."""
    path = install.kernel()
    if when == "during":
        path.unlink()
    before = kept(install.cache)
    found = kernel(install.site, install.cache, str(install.site / "gpurnn_kernels" / "cells.py"), when)
    assert told(found, "compiled")
    assert kept(install.cache) == before
    assert not warnings(found)


# Who gets in


def strangers(path: Path, how: str) -> None:
    if how == "others may write":
        path.chmod(path.stat().st_mode | 0o020)
    elif how == "a link":
        path.symlink_to(path.rename(path.with_name("elsewhere")))
    elif os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        pytest.skip("only root can give files away")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX's permissions")
@pytest.mark.parametrize("how", ["others may write", "another user's", "a link"])
def test_files_that_others_may_have_written(how: str, install: Install) -> None:
    strangers(install.kernel(), how)
    found = kernel(install.site, install.cache)
    assert told(found, "compiled")
    assert len(warnings(found)) == 1
    assert NAME in warnings(found)[0]
    again = kernel(install.site, install.cache)
    assert told(again, "loaded"), "the file was replaced"
    assert not warnings(again)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX's permissions")
@pytest.mark.parametrize("how", ["others may write", "another user's"])
def test_folders_that_others_may_write_to(how: str, install: Install) -> None:
    folder = install.cache / "gpurnn"
    strangers(folder, how)
    before = kept(install.cache)
    found = kernel(install.site, install.cache)
    assert told(found, "compiled")
    assert [str(folder) in warning for warning in warnings(found)] == [True, True]  # one of reading, one of writing
    assert kept(install.cache) == before


def test_writing_follows_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(os, "urandom", lambda n: bytes(n))
    scratch = tmp_path / f"kernel.bin.{bytes(8).hex()}.tmp"
    scratch.symlink_to(victim)
    with pytest.raises(FileExistsError):
        files.write(tmp_path, "kernel.bin", b"code")
    (tmp_path / "kernel.bin").symlink_to(victim)
    files.write(tmp_path, "kernel.bin", b"code")
    assert victim.read_text() == "precious"
    assert files.read(tmp_path, "kernel.bin") == b"code"


# Folders


def folders(site: Path, prelude: str = "", **more: str | None) -> list[str]:
    found: list[str] = json.loads(
        python(f"{prelude}\nfrom programs import cache; cache.folders()", **environment(site, None) | more)
    )
    return found


def test_folders_that_are_read(filled: Install, tmp_path: Path) -> None:
    """Root fills the installation's, which every user reads; users fill their own. A frozen program has its user's alone."""
    users = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    for uid in (0, 1000):
        prelude = f"import os; os.geteuid = lambda: {uid}" if hasattr(os, "geteuid") else ""
        found = folders(filled.site, prelude, **users)
        assert [Path(folder).is_relative_to(tmp_path) for folder in found] == [uid != 0, uid == 0] or not prelude
        frozen = folders(filled.site, f"{prelude}\nimport sys; sys.frozen = True", **users)
        assert [Path(folder).is_relative_to(tmp_path) for folder in frozen] == [True]


def test_nothing_of_the_package_is_left_behind(filled: Install) -> None:
    """A folder of that name could be imported after an uninstallation."""
    for folder in folders(filled.site):
        assert not Path(folder).is_relative_to(filled.site / "gpurnn_kernels")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to take root's privileges away")
def test_a_cache_that_can_only_be_read(install: Install) -> None:
    """It is used, and what it lacks is compiled."""
    folder, prelude = install.cache / "gpurnn", "from programs import cache; cache.obey_permissions()"
    folder.chmod(0o555)
    found = kernel(install.site, install.cache, prelude=prelude)
    assert told(found, "loaded")
    assert not warnings(found)
    folder.chmod(0o755)
    install.kernel().unlink()
    folder.chmod(0o555)
    found = kernel(install.site, install.cache, prelude=prelude)
    folder.chmod(0o755)
    assert told(found, "compiled")
    assert len(warnings(found)) == 1
    assert str(folder) in warnings(found)[0]
    assert "NUMBA_CACHE_DIR" in warnings(found)[0]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX's permissions")
def test_everybody_trusts_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.stat_result((0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert trust.distrust(tmp_path, status) is None


def test_old_files_go_when_new_ones_are_written(install: Install) -> None:
    path = install.kernel()
    old, broken, other = (path.parent / name for name in ("forward-0.bin", "forward-0.bin.1.tmp", "notes.txt"))
    for one in (old, broken, other):
        one.write_bytes(b"")
        os.utime(one, (1e9, 1e9))
    path.unlink()
    others = set(kept(install.cache)) - {old}
    assert told(kernel(install.site, install.cache), "compiled")
    assert set(kept(install.cache)) == others | {path}
    assert not broken.exists()
    assert other.exists()


def test_too_many_files_go_longest_unused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST", 100)
    now = time.time()
    for k in range(5):
        (tmp_path / f"{k}.bin").write_bytes(bytes(30))
        os.utime(tmp_path / f"{k}.bin", (now - 1000 * k, now - 1000 * k))
    files.sweep(tmp_path)
    assert [path.name for path in kept(tmp_path)] == ["0.bin", "1.bin", "2.bin"]


def test_a_file_that_is_read_counts_as_used(tmp_path: Path) -> None:
    files.write(tmp_path, "kernel.bin", b"code")
    os.utime(tmp_path / "kernel.bin", (1e9, 1e9))
    assert files.read(tmp_path, "kernel.bin") == b"code"
    files.sweep(tmp_path)
    assert kept(tmp_path)


# Several processes


def test_processes_that_start_at_once_compile_once(filled: Install, tmp_path: Path) -> None:
    program = "from programs import cache; cache.kernel()"
    processes = [started(program, **environment(filled.site, tmp_path)) for _ in range(3)]
    try:
        found = [json.loads(finished(process, 240)) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                end(process)
                process.communicate()
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
