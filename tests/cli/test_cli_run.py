"""`gpurnn run`: what it computes, what it writes, and what it says when something is wrong."""

import errno
import os
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import LAYERS, PROGRAM, B, H, I, T, case, error_of, files
from rich.console import Console

import gpurnn
from gpurnn.cli import gpu, main, npy, run
from gpurnn.cli.progress import progress

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

# --- results ---


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_any_batch_gives_the_bits_of_one_call(name: str, ragged: bool) -> None:
    layer, x, lengths = case(name)
    expected, _ = layer(x, lengths=lengths if ragged else None)
    for batch in [], ["--batch", "1"], ["--batch", "4"], ["--batch", "100"]:
        argv = ["run", "m.safetensors", "x.npy", "-o", "y.npy", "--device", "cpu", *batch]
        assert main([*argv, "--lengths", "n.npy"] if ragged else argv) == 0
        y = np.load("y.npy")
        assert y.dtype == expected.dtype
        assert np.array_equal(y, expected), batch
    assert files() == {"m.safetensors", "x.npy", "n.npy", "y.npy"}


@pytest.mark.parametrize("name", ["lstm-bidirectional-stacked", "gru-batch-first"])
def test_unbatched(name: str) -> None:
    layer = LAYERS[name]()
    layer.save("m.safetensors")
    x = np.random.default_rng(0).standard_normal((T, I)).astype(np.float32)
    np.save("x.npy", x)
    np.save("n.npy", np.int64(4))
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy"]) == 0
    assert np.array_equal(np.load("y.npy"), layer(x)[0])
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--lengths", "n.npy"]) == 0
    assert np.array_equal(np.load("y.npy"), layer(x, lengths=4)[0])


@pytest.mark.parametrize("shape", [(T, 0, I), (0, B, I), (0, I)])
def test_empty_input(shape: tuple[int, ...]) -> None:
    LAYERS["lstm"]().save("m.safetensors")
    np.save("x.npy", np.zeros(shape, np.float32))
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy"]) == 0
    y = np.load("y.npy")
    assert (y.shape, y.dtype) == ((*shape[:-1], H), np.float32)


def test_fortran_ordered_input() -> None:
    layer, x, _ = case("lstm")
    np.save("x.npy", np.asfortranarray(x))
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "4"]) == 0
    assert np.array_equal(np.load("y.npy"), layer(x)[0])


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and permissions")
def test_output_through_a_link() -> None:
    case("lstm")
    Path("there").mkdir()
    Path("y.npy").symlink_to("there/y.npy")
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy"]) == 0
    assert Path("y.npy").is_symlink()
    assert Path("there/y.npy").stat().st_mode == Path("x.npy").stat().st_mode


def test_rows_that_have_no_steps() -> None:
    """A file of 128 bytes that tells of 2**40 rows: their outputs hold nothing, and nothing is computed."""
    case("lstm")
    header("x.npy", (0, 2**40, I))
    tracemalloc.start()
    try:
        assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy"]) == 0
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert np.load("y.npy").shape == (0, 2**40, H)


def test_states_count_as_memory() -> None:
    wide, narrow = (gpurnn.LSTM(1, size, num_layers=2) for size in (512, 1))
    for steps in (0, 1):
        assert 1 <= run._batch(steps, wide) < run._batch(steps, narrow) // 100
        assert run._batch(steps, wide) * 2 * 4 * 512 * 4 <= run.BATCH_BYTES


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 5), (3, 4), (3,), ()])
def test_npy_files_in_pieces(order: Any, shape: tuple[int, ...]) -> None:
    a = np.array(np.random.default_rng(0).standard_normal(shape), order=order)
    np.save("a.npy", a)
    with npy.opened(Path("a.npy")) as file:
        assert np.array_equal(file.whole(), a)
        for axis, size in enumerate(shape):
            for rows in (slice(0, min(1, size)), slice(1, max(1, size)), slice(0, size)):
                assert np.array_equal(file.rows(axis, rows), a[(slice(None),) * axis + (rows,)])
    for axis, size in enumerate(shape):
        with npy.new_npy(Path("b.npy"), shape, a.dtype) as new:
            for row in range(size):
                new.write(axis, slice(row, row + 1), a.take([row], axis))
        assert np.array_equal(np.load("b.npy"), a)


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm")
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "1"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("patience", "shown"), [(0.0, True), (1000.0, False)])
def test_bar(patience: float, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    with progress("rows", patience) as update:
        update(1, 2, "half")
    assert ("rows" in capsys.readouterr().err) == shown


# --- errors ---


def shorten(name: str, count: int) -> None:
    path = Path(name)
    path.write_bytes(path.read_bytes()[:-count])


def header(name: str, shape: tuple[int, ...]) -> None:
    """A .npy file without numbers."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    Path(name).write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


BAD_FILES: dict[str, tuple[Callable[[], Any], str]] = {
    "no-input": (lambda: Path("x.npy").unlink(), "x.npy: no such file"),
    "empty-file": (lambda: Path("x.npy").write_bytes(b""), "x.npy: not a .npy file"),
    "negative-size": (lambda: header("x.npy", (-1, B, I)), "x.npy: not a readable .npy file: its shape is (-1, "),
    "claims-more": (lambda: header("x.npy", (2**40, B, I)), "x.npy: not a readable .npy file: float32 (1099511627776, "),
    "unbalanced": (lambda: header("x.npy", "(" * 300), "x.npy: not a readable .npy file"),  # type: ignore[arg-type]
    "header-only": (lambda: Path("x.npy").write_bytes(b"\x93NUMPY\x01"), "x.npy: not a readable .npy file"),
    "archive": (lambda: np.savez("x.npz", x=1) or Path("x.npz").replace("x.npy"), "x.npy: not a .npy file"),
    "objects": (lambda: np.save("x.npy", np.array([None], object)), "x.npy: not a readable .npy file"),
    "truncated": (lambda: shorten("x.npy", 8), "x.npy: not a readable .npy file"),
    "double": (lambda: np.save("x.npy", np.zeros((T, B, I))), "computes in float32, the array is float64"),
    "byte-swapped": (lambda: np.save("x.npy", np.zeros((T, B, I), ">f4")), "in float32, the array is >f4"),
    "width": (lambda: np.save("x.npy", np.zeros((T, B, I + 1), np.float32)), f"takes (T, B, {I}) or (T, {I})"),
    "rank": (lambda: np.save("x.npy", np.zeros(I, np.float32)), f"the array is ({I},)"),
    "no-model": (lambda: Path("m.safetensors").unlink(), "m.safetensors"),
    "random-model": (lambda: Path("m.safetensors").write_bytes(b"\0" * 100), "m.safetensors: not a safetensors file"),
    "truncated-model": (lambda: shorten("m.safetensors", 4), "m.safetensors: not a safetensors file"),
    "no-lengths": (lambda: Path("n.npy").unlink(), "n.npy: no such file"),
    "lengths-shape": (lambda: np.save("n.npy", np.zeros(B + 1, int)), "n.npy: lengths: expected shape"),
    "lengths-type": (lambda: np.save("n.npy", np.zeros(B)), "n.npy: lengths: expected integers, got float64"),
    "lengths-long": (lambda: np.save("n.npy", np.full(B, T + 1)), f"n.npy: lengths: expected integers in 0..{T}"),
    "lengths-negative": (lambda: np.save("n.npy", np.full(B, -1)), f"n.npy: lengths: expected integers in 0..{T}"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm")
    spoil, said = BAD_FILES[name]
    spoil()
    before = files()
    assert said in error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--lengths", "n.npy"], capsys)
    assert files() == before


@pytest.mark.parametrize(
    ("target", "said"), [("nowhere/y.npy", "no such folder"), (".", ".: is a directory"), (os.devnull, "not a regular file")]
)
def test_bad_targets(target: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm")
    before = files()
    assert said in error_of(["run", "m.safetensors", "x.npy", "-o", target], capsys)
    assert files() == before


@pytest.mark.parametrize("target", ["m.safetensors", "x.npy", "n.npy", "link.npy"])
def test_no_input_is_overwritten(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm")
    if target == "link.npy":
        Path(target).symlink_to("x.npy")
    before = {name: Path(name).read_bytes() for name in files()}
    error = error_of(["run", "m.safetensors", "x.npy", "-o", target, "--lengths", "n.npy"], capsys)
    assert f"{target}: the output would take the place of" in error
    assert {name: Path(name).read_bytes() for name in files()} == before


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no such device")
def test_standard_output_is_no_file() -> None:
    """The error names what was asked for, not what it leads to."""
    LAYERS["lstm"]().save("m.safetensors")
    np.save("x.npy", np.zeros((T, B, I), np.float32))
    done = subprocess.run([*PROGRAM, "run", "m.safetensors", "x.npy", "-o", "/dev/stdout"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpurnn: error: /dev/stdout: not a regular file\n"


def test_an_error_names_the_file_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(["demo", "--save", "no/x.safetensors"], capsys) == (
        f"gpurnn: error: {Path.cwd() / 'no'}: no such folder\n"
    )
    Path("a").write_text("")
    assert error_of(["demo", "--save", "a/x.safetensors"], capsys) == "gpurnn: error: a/x.safetensors: not a directory\n"


def test_cuda_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    missing = gpu.missing()
    if missing is None:
        pytest.skip("there is a GPU")
    case("lstm")
    assert missing in error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--device", "cuda"], capsys)
    assert "y.npy" not in files()


# --- a failure in the middle ---


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (MemoryError(), 1, "out of memory"),
        (ValueError("two\nlines"), 1, "two lines"),
        (OSError(errno.EIO, "Input/output error", "x.npy"), 1, "x.npy: input/output error"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=["memory", "value", "disk", "interrupt"],
)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "replacing"])
def test_a_failure_leaves_what_was_there(
    failure: BaseException,
    status: int,
    said: str,
    existing: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case("lstm")
    if existing:
        Path("y.npy").write_text("as it was")
    before, call, calls = files(), gpurnn.LSTM.__call__, []

    def fails_at_the_third(self: gpurnn.LSTM, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise failure
        return call(self, *args, **kwargs)

    monkeypatch.setattr(gpurnn.LSTM, "__call__", fails_at_the_third)
    assert said in error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "2"], capsys, status)
    assert files() == before
    if existing:
        assert Path("y.npy").read_text() == "as it was"


@pytest.mark.parametrize("name", ["lstm", "gru-batch-first"])
def test_an_input_that_becomes_shorter(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that is gone from the file is an error: a map of it would end the process."""
    layer, _, _ = case(name)
    before, call = files(), type(layer).__call__

    def shortens(self: Any, *args: Any, **kwargs: Any) -> Any:
        os.truncate("x.npy", 200)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(layer), "__call__", shortens)
    error = error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "4"], capsys)
    assert error == "gpurnn: error: x.npy: it became shorter while it was read\n"
    assert files() == before


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="disk space is not reserved here")
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm")
    before = files()

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    error = error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy"], capsys)
    assert "y.npy: no space left on device" in error
    assert files() == before
