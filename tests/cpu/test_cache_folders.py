"""Folders of machine code on disk: where it is kept, who may have written there, what is removed."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from helpers import python
from installs import NAME, Install, environment, kept, kernel, run, told, warnings

from gpurnn_kernels.cpu.codegen import cache_files as files
from gpurnn_kernels.cpu.codegen import cache_folders as trust


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
