"""The command line: what it computes, what it writes, and what it says when something is wrong."""

import errno
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import gpurnn
import gpurnn_kernels
from gpurnn.cli import gpu, info, main, npy, run
from gpurnn.cli.progress import progress

T, B, I, H = 9, 11, 5, 7
LAYERS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: gpurnn.LSTM(I, H, seed=1),
    "lstm-bidirectional-stacked": lambda: gpurnn.LSTM(I, H, 2, bidirectional=True, seed=1),
    "lstm-float64": lambda: gpurnn.LSTM(I, H, dtype="float64", seed=1),
    "gru-batch-first": lambda: gpurnn.GRU(I, H, batch_first=True, seed=1),
    "gru-reset-after-reverse": lambda: gpurnn.GRU(I, H, reset_after=True, reverse=True, seed=1),
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def files() -> set[str]:
    return {path.name for path in Path.cwd().iterdir()}


def case(name: str, rng: np.random.Generator) -> tuple[Any, np.ndarray, np.ndarray]:
    """A layer, an input of its layout and lengths, also as the files m.safetensors, x.npy and n.npy."""
    layer = LAYERS[name]()
    shape = (B, T, I) if layer.batch_first else (T, B, I)
    x = rng.standard_normal(shape).astype(layer.dtype)
    lengths = rng.integers(0, T + 1, B)
    layer.save("m.safetensors")
    np.save("x.npy", x)
    np.save("n.npy", lengths)
    return layer, x, lengths


def error_of(argv: list[str], capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """The one line that a failing command says."""
    try:
        found = main(argv)
    except SystemExit as leave:  # argparse's
        found = leave.code
    out, err = capsys.readouterr()
    assert (found, out) == (status, ""), err
    assert err.startswith("gpurnn: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


# --- the program ---


def test_help_imports_no_numba() -> None:
    program = (
        "import sys; from gpurnn.cli import main\ntry: main(['--help'])\nexcept SystemExit: print('numba' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.endswith("False\n")
    assert all(command in out for command in ("info", "demo", "run", "warmup"))


@pytest.mark.parametrize("command", ["info", "demo", "run", "warmup"])
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([command, "--help"])
    assert leave.value.code == 0
    assert f"gpurnn {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["--version"])
    assert leave.value.code == 0
    assert capsys.readouterr().out == f"gpurnn {gpurnn.__version__}\n"


def test_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "gpurnn", "run", "--batch", "0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpurnn: error: argument --batch: expected at least 1, got 0\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["run"], "MODEL.safetensors"),
        (["run", "m.safetensors", "x.npy"], "--output"),
        (["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "many"], "--batch: expected an integer, got 'many'"),
        (["demo", "--seed", "1.5"], "--seed: expected an integer, got '1.5'"),
        (["demo", "--seed", "-1"], "--seed: expected at least 0, got -1"),
        (["run", "m.safetensors", "x.npy", "-o", "y.npy", "--device", "tpu"], "tpu"),
    ],
)
def test_wrong_usage(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of(argv, capsys, status=2)


@pytest.mark.skipif(os.name != "posix", reason="closes a pipe under the program")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = [sys.executable, "-m", "gpurnn", "info"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("early", ["argparse.ArgumentParser.__init__", "gpurnn.cli.signals.signal.getsignal"])
def test_an_interrupt_at_any_time_is_one_line(
    early: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(early, interrupted)
    assert error_of(["info"], capsys, 130) == "gpurnn: error: interrupted\n"


# --- consoles ---

PROGRAM = [sys.executable, "-m", "gpurnn"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_console_that_cannot_write_a_name(encoding: str, rng: np.random.Generator) -> None:
    """What was done is done: the name is spelled as far as it can be."""
    case("lstm", rng)
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*PROGRAM, "run", "m.safetensors", "x.npy", "-o", "\u65e5.npy"], capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith("\u65e5.npy: float32".encode(encoding, "backslashreplace"))
    assert Path("\u65e5.npy").exists()


def test_no_name_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    sizes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_ih_l0": (16,), "bias_hh_l0": (16,)}
    names = ["\x1b]0;title\x07a", "\x9b2Jb", "\u202ec", "d\r\n"]
    state = {f"{name}.{part}": np.ones(size, np.float32) for name in names for part, size in sizes.items()}
    save_file(state, "m.safetensors")
    assert main(["inspect", "m.safetensors"]) == 0
    out = capsys.readouterr().out
    assert set(re.findall(r"^\S+", out, re.MULTILINE)) == {"name", r"\x1b]0;title\x07a.", r"\x9b2Jb.", r"\u202ec.", r"d\r\n."}
    for argv in (["convert", "m.safetensors", "o.safetensors"], ["run", "\x1b[2J", "x.npy", "-o", "y.npy"], ["\x1b[2J"]):
        error = error_of(argv, capsys, 2 if len(argv) == 1 else 1)
        assert r"\x1b" in error
        assert error[:-1].isprintable()


@pytest.mark.skipif(os.name != "posix", reason="closes what the program prints to")
@pytest.mark.parametrize("closed", [1, 2])
def test_without_a_console(closed: int) -> None:
    """An error is not said on standard output where standard error is closed."""
    argv = ["info"] if closed == 1 else ["run", "m", "x.npy", "-o", "y.npy"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}>&-', "sh", *PROGRAM, *argv], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (closed - 1, b"", b"")


LOGGING = """
import logging, sys, gpurnn
from gpurnn.cli import info, main

def warns(args):
    logging.getLogger("gpurnn").warning("a name: %s", "\x1b[2J\\n")

warns(None)
info.run = warns
sys.exit(main(["info"]))
"""


def test_warnings_are_shown_by_the_command_line_alone() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "gpurnn: warning: a name: \\x1b[2J\n"


# --- info ---


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["gpurnn"].startswith(gpurnn.__version__)
    assert lines["numpy"] == np.__version__
    assert lines["threads"] == str(gpurnn.get_num_threads())
    assert "lanes" in lines["kernels for"]
    assert {"python", "numba", "llvmlite", "CPU", "GPU", "kernel cache"} <= set(lines)
    assert "warning" not in lines


def test_info_tells_halves_from_different_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert info.mixture() is None
    monkeypatch.setattr(gpurnn_kernels, "__file__", str(tmp_path / "gpurnn_kernels" / "__init__.py"))
    assert str(tmp_path) in info.facts()["warning"]


# --- run: results ---


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_any_batch_gives_the_bits_of_one_call(name: str, ragged: bool, rng: np.random.Generator) -> None:
    layer, x, lengths = case(name, rng)
    expected, _ = layer(x, lengths=lengths if ragged else None)
    for batch in [], ["--batch", "1"], ["--batch", "4"], ["--batch", "100"]:
        argv = ["run", "m.safetensors", "x.npy", "-o", "y.npy", "--device", "cpu", *batch]
        assert main([*argv, "--lengths", "n.npy"] if ragged else argv) == 0
        y = np.load("y.npy")
        assert y.dtype == expected.dtype
        assert np.array_equal(y, expected), batch
    assert files() == {"m.safetensors", "x.npy", "n.npy", "y.npy"}


@pytest.mark.parametrize("name", ["lstm-bidirectional-stacked", "gru-batch-first"])
def test_unbatched(name: str, rng: np.random.Generator) -> None:
    layer = LAYERS[name]()
    layer.save("m.safetensors")
    x = rng.standard_normal((T, I)).astype(np.float32)
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


def test_fortran_ordered_input(rng: np.random.Generator) -> None:
    layer, x, _ = case("lstm", rng)
    np.save("x.npy", np.asfortranarray(x))
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "4"]) == 0
    assert np.array_equal(np.load("y.npy"), layer(x)[0])


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and permissions")
def test_output_through_a_link(rng: np.random.Generator) -> None:
    case("lstm", rng)
    Path("there").mkdir()
    Path("y.npy").symlink_to("there/y.npy")
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy"]) == 0
    assert Path("y.npy").is_symlink()
    assert Path("there/y.npy").stat().st_mode == Path("x.npy").stat().st_mode


def test_rows_that_have_no_steps(rng: np.random.Generator) -> None:
    """A file of 128 bytes that tells of 2**40 rows: their outputs hold nothing, and nothing is computed."""
    case("lstm", rng)
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
def test_npy_files_in_pieces(order: Any, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    a = np.array(rng.standard_normal(shape), order=order)
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


def test_no_bar_where_there_is_no_terminal(rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm", rng)
    assert main(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "1"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("patience", "shown"), [(0.0, True), (1000.0, False)])
def test_bar(patience: float, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    with progress("rows", patience) as update:
        update(1, 2, "half")
    assert ("rows" in capsys.readouterr().err) == shown


# --- run: errors ---


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
def test_bad_files(name: str, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm", rng)
    spoil, said = BAD_FILES[name]
    spoil()
    before = files()
    assert said in error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--lengths", "n.npy"], capsys)
    assert files() == before


@pytest.mark.parametrize(
    ("target", "said"), [("nowhere/y.npy", "no such folder"), (".", ".: is a directory"), (os.devnull, "not a regular file")]
)
def test_bad_targets(target: str, said: str, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm", rng)
    before = files()
    assert said in error_of(["run", "m.safetensors", "x.npy", "-o", target], capsys)
    assert files() == before


@pytest.mark.parametrize(
    ("driver", "built_for", "said"), [(0, 13020, "no NVIDIA driver"), (12040, 13020, "'gpurnn[cuda12]'"), (13010, 13020, None)]
)
def test_the_drivers_part(driver: int, built_for: int, said: str | None) -> None:
    fault = gpu.driver_fault(driver, built_for)
    assert fault is None if said is None else fault is not None and said in fault


@pytest.mark.parametrize("target", ["m.safetensors", "x.npy", "n.npy", "link.npy"])
def test_no_input_is_overwritten(target: str, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm", rng)
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
    program = [sys.executable, "-m", "gpurnn", "run", "m.safetensors", "x.npy", "-o", "/dev/stdout"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpurnn: error: /dev/stdout: not a regular file\n"


def test_an_error_names_the_file_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(["demo", "--save", "no/x.safetensors"], capsys) == (
        f"gpurnn: error: {Path.cwd() / 'no'}: no such folder\n"
    )
    Path("a").write_text("")
    assert error_of(["demo", "--save", "a/x.safetensors"], capsys) == "gpurnn: error: a/x.safetensors: not a directory\n"


@pytest.mark.parametrize("there", [False, True])
def test_cublas_is_looked_for(there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine with a driver and a GPU, with and without the library that every layer's call needs."""
    runtime = SimpleNamespace(driverGetVersion=lambda: 13020, runtimeGetVersion=lambda: 13000, getDeviceCount=lambda: 1)
    libs = SimpleNamespace(cublas=None) if there else SimpleNamespace()
    monkeypatch.setattr(gpu, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "cupy.cuda", SimpleNamespace(runtime=runtime))
    for name, module in (
        ("cupy", None),
        ("cupy_backends", None),
        ("cupy_backends.cuda", None),
        ("cupy_backends.cuda.libs", libs),
    ):
        monkeypatch.setitem(sys.modules, name, module or SimpleNamespace())
    monkeypatch.setattr(gpu, "name", lambda: "H100")
    main(["info"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("GPU"))
    assert ("H100" in line) is there
    assert ("cuBLAS is not installed: pip install 'gpurnn[cuda12]' or 'gpurnn[cuda13]'" in line) is not there


def test_cuda_without_a_gpu(rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    missing = gpu.missing()
    if missing is None:
        pytest.skip("there is a GPU")
    case("lstm", rng)
    assert missing in error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--device", "cuda"], capsys)
    assert "y.npy" not in files()


# --- run: a failure in the middle ---


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
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case("lstm", rng)
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
def test_an_input_that_becomes_shorter(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is gone from the file is an error: a map of it would end the process."""
    layer, _, _ = case(name, rng)
    before, call = files(), type(layer).__call__

    def shortens(self: Any, *args: Any, **kwargs: Any) -> Any:
        os.truncate("x.npy", 200)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(layer), "__call__", shortens)
    error = error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy", "--batch", "4"], capsys)
    assert error == "gpurnn: error: x.npy: it became shorter while it was read\n"
    assert files() == before


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="disk space is not reserved here")
def test_a_full_disk(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case("lstm", rng)
    before = files()

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    error = error_of(["run", "m.safetensors", "x.npy", "-o", "y.npy"], capsys)
    assert "y.npy: no space left on device" in error
    assert files() == before


STALLING = """
import signal, sys, time, gpurnn
from gpurnn.cli import main

# whoever started the tests may have had them ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

def stall(self, *args, **kwargs):
    print("working", flush=True)
    time.sleep(600)

gpurnn.LSTM.__call__ = stall
sys.exit(main(["run", "m.safetensors", "x.npy", "-o", "y.npy"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_leaves_nothing(number: str, status: int, rng: np.random.Generator) -> None:
    case("lstm", rng)
    before = files()
    with subprocess.Popen(
        [sys.executable, "-c", STALLING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        assert len(files()) == len(before) + 1
        process.send_signal(getattr(signal, number))
        _, err = process.communicate()
    assert process.returncode == status
    assert err == ("gpurnn: error: interrupted\n" if number == "SIGINT" else "")
    assert files() == before


# --- warmup ---


def test_warmup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup"]) == 0
    assert re.match(r"\d+ kernels ready in ", capsys.readouterr().out)
