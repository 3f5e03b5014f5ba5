"""Layers in files: what comes back, and what saving does to what is there."""

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LAYERS, Problem, assert_same_bits, leaves
from reference_cells import CELLS
from safetensors import safe_open

import gpurnn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer.safetensors"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
def test_round_trip(cell: str, dtype: str, options: dict[str, Any], path: Path) -> None:
    p = Problem(cell, dtype=dtype, **options)
    p.layer.save(path)
    for given in (path, str(path)):
        layer = gpurnn.load(given)
        assert type(layer) is type(p.layer)
        assert repr(layer) == repr(p.layer)
        assert_same_bits(layer.params, p.layer.params)
        x = p.laid_out(p.x)
        assert_same_bits(tuple(leaves(layer(x))), tuple(leaves(p.layer(x))))


def test_all_arguments_come_back(path: Path) -> None:
    layer = gpurnn.LSTM(3, 4, 2, batch_first=True, forget_bias=1.5, dtype="float64", seed=3)
    layer.save(path)
    loaded = gpurnn.load(path)
    assert loaded.configuration() == layer.configuration()
    assert_same_bits(loaded.params, layer.params)


def test_the_format(path: Path) -> None:
    """Plain safetensors: names as in params, metadata of texts with a version and the arguments as JSON."""
    layer = gpurnn.GRU(3, 4, reset_after=True)
    layer.save(path)
    with safe_open(path, "np") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in layer.params}
    description = json.loads(metadata["gpurnn"])
    assert metadata["gpurnn_format"] == "1"
    assert description["layer"] == "GRU"
    assert description["arguments"]["reset_after"] is True
    assert_same_bits(arrays, layer.params)


def test_saving_replaces_a_file_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = gpurnn.LSTM(3, 4, seed=1), gpurnn.LSTM(3, 4, seed=2)
    first.save(path)
    for name in ("replace", "open"):
        with monkeypatch.context() as broken:

            def fail(*_: Any, **__: Any) -> None:
                raise OSError(errno.ENOSPC, "disk full")

            broken.setattr(os, name, fail)
            with pytest.raises(OSError, match=re.escape(f"{os.strerror(errno.ENOSPC)}: {str(path)!r}")):
                second.save(path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        assert_same_bits(gpurnn.load(path).params, first.params)
    second.save(path)
    assert_same_bits(gpurnn.load(path).params, second.params)


def test_where_nothing_can_be_saved(tmp_path: Path) -> None:
    layer = gpurnn.LSTM(3, 4)
    with pytest.raises(FileNotFoundError):
        layer.save(tmp_path / "no" / "such.safetensors")
    with pytest.raises(OSError):  # noqa: PT011
        layer.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_follow_the_umask(path: Path) -> None:
    before = os.umask(0o027)
    try:
        gpurnn.LSTM(3, 4).save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_umask_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the process's: while it is another, files of other threads get other permissions."""
    called: list[int] = []
    monkeypatch.setattr(os, "umask", called.append)
    gpurnn.LSTM(3, 4).save(path)
    assert called == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_its_permissions(mode: int, path: Path) -> None:
    path.touch()
    path.chmod(mode)
    gpurnn.LSTM(3, 4).save(path)
    assert path.stat().st_mode & 0o777 == mode
    assert gpurnn.load(path).hidden_size == 4


@pytest.mark.skipif(os.name == "nt" or os.getuid(), reason="gives a file away")
def test_a_file_keeps_its_owner(path: Path) -> None:
    path.touch()
    os.chown(path, 12345, 12346)
    gpurnn.LSTM(3, 4).save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_saving_follows_links(path: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path.symlink_to("there/other.safetensors")
    for size in (4, 5):  # nothing is there, and a layer is
        gpurnn.LSTM(3, size).save(path)
        assert path.is_symlink()
        assert gpurnn.load(tmp_path / "there" / "other.safetensors").hidden_size == size
    assert [one.name for one in (tmp_path / "there").iterdir()] == ["other.safetensors"]
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(OSError, match=f"symbolic links: '{path}'"):
        gpurnn.LSTM(3, 4).save(path)


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_what_is_no_file_stays(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "null"
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    for target in (pipe, link):
        with pytest.raises(ValueError, match=f"{target}: not a regular file"):
            gpurnn.LSTM(3, 4).save(target)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert len(list(tmp_path.iterdir())) == 2


def test_long_names(tmp_path: Path) -> None:
    """Names may be as long as the system takes: the file beside has a name of its own."""
    path = tmp_path / ("x" * 243 + ".safetensors")
    gpurnn.LSTM(3, 4).save(path)
    assert gpurnn.load(path).hidden_size == 4


def test_missing_files_and_folders(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        gpurnn.load(path)
    with pytest.raises(FileNotFoundError):
        gpurnn.load(tmp_path / "no" / "such")
    with pytest.raises(ValueError, match="folder"):
        gpurnn.load(tmp_path)
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        gpurnn.load(path)


def test_loading_does_not_use_the_random_seed(path: Path) -> None:
    gpurnn.LSTM(3, 4).save(path)
    state = str(np.random.get_state())  # noqa: NPY002
    assert_same_bits(gpurnn.load(path).params, gpurnn.load(path).params)
    assert str(np.random.get_state()) == state  # noqa: NPY002
