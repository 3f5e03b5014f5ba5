"""Ctrl-C and other signals to the command line: one line or silence, and nothing is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_cases import case, error_of, files

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

posix = pytest.mark.skipif(os.name != "posix", reason="signals")

# Python runs a module of this name as it starts: Ctrl-C comes when a certain module is looked for
CUSTOMIZE = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

# whoever started the tests may have had it ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
"""
CONSOLE_SCRIPT = "import sys\nfrom gpurnn.cli import main\nsys.exit(main())\n"  # as installers write it


def interrupted(at: str, folder: Path, *command: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a Python program that is interrupted while it imports a module."""
    (folder / "sitecustomize.py").write_text(CUSTOMIZE)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "INTERRUPT_AT": at}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env)
    return done.returncode, done.stdout, done.stderr


@posix
@pytest.mark.parametrize("start", ["module", "script"])
@pytest.mark.parametrize("at", ["logging", "numpy", "gpurnn.cells", "gpurnn_kernels.spec", "gpurnn.layers.stream"])
def test_while_the_library_is_imported(at: str, start: str, tmp_path: Path) -> None:
    """The program dies of the signal, without a word."""
    (tmp_path / "gpurnn").write_text(CONSOLE_SCRIPT)
    command = ("-m", "gpurnn") if start == "module" else (str(tmp_path / "gpurnn"),)
    assert interrupted(at, tmp_path, *command, "info") == (-signal.SIGINT, "", "")


@posix
def test_while_a_command_is_imported(tmp_path: Path) -> None:
    """It has caught interrupts from its first line on."""
    assert interrupted("gpurnn.cli.info", tmp_path, "-m", "gpurnn", "info") == (130, "", "gpurnn: error: interrupted\n")


CATCHES = """
import signal
try:
    import gpurnn
except KeyboardInterrupt:
    print("caught", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@posix
@pytest.mark.parametrize("at", ["numpy", "gpurnn.layers.stream"])
def test_other_programs_catch_it(at: str, tmp_path: Path) -> None:
    assert interrupted(at, tmp_path, "-c", CATCHES) == (0, "caught True\n", "")


@pytest.mark.parametrize("early", ["argparse.ArgumentParser.__init__", "gpurnn.cli.signals.signal.getsignal"])
def test_an_interrupt_at_any_time_is_one_line(
    early: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(early, interrupted)
    assert error_of(["info"], capsys, 130) == "gpurnn: error: interrupted\n"


STALLING = """
import signal, sys, time, gpurnn
from gpurnn.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

def stall(self, *args, **kwargs):
    print("working", flush=True)
    time.sleep(600)

gpurnn.LSTM.__call__ = stall
sys.exit(main(["run", "m.safetensors", "x.npy", "-o", "y.npy"]))
"""


@posix
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_leaves_nothing(number: str, status: int) -> None:
    case("lstm")
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
