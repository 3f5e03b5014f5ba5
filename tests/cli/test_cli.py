"""The command line itself: help, usage, consoles, and what `gpurnn info` and `gpurnn warmup` say."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cli_cases import PROGRAM, case, error_of
from helpers import python

import gpurnn
import gpurnn_kernels
from gpurnn.cli import gpu, info, main

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

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
    done = subprocess.run([*PROGRAM, "run", "--batch", "0"], capture_output=True, text=True)
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
    with subprocess.Popen([*PROGRAM, "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


# --- consoles ---


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_console_that_cannot_write_a_name(encoding: str) -> None:
    """A finished run stays a success: the name is spelled as far as it can be."""
    case("lstm")
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


@pytest.mark.parametrize(
    ("driver", "built_for", "said"), [(0, 13020, "no NVIDIA driver"), (12040, 13020, "'gpurnn[cuda12]'"), (13010, 13020, None)]
)
def test_the_drivers_part(driver: int, built_for: int, said: str | None) -> None:
    fault = gpu.driver_fault(driver, built_for)
    assert fault is None if said is None else fault is not None and said in fault


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


# --- warmup ---


def test_warmup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup"]) == 0
    assert re.match(r"\d+ kernels ready in ", capsys.readouterr().out)


def test_a_part_is_compiled_by_several_processes(tmp_path: Path) -> None:
    """The cells that were asked for have their machine code on disk afterwards, the others have not."""
    generic = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""} if platform.machine() in ("x86_64", "AMD64") else {}
    code = "from gpurnn.cli import main\nif __name__ == '__main__': main()"
    arguments = ("warmup", "--cells", "gru-after", "--dtype", "float32", "--jobs", "2")
    assert " kernels ready in " in python(code, *arguments, NUMBA_CACHE_DIR=str(tmp_path), **generic)
    kept = {path.name.partition("-")[0] for path in tmp_path.rglob("*.bin")}
    assert {"gru_after_step", "gru_after_step_back", "forward", "call", "step"} <= kept
    assert not [name for name in kept if name.startswith("lstm")]
