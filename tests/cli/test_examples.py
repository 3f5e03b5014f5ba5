"""Every script in examples/ runs to its end and prints what it is there for."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "voice_activity": ["silero_vad", "espeakng_loader", "onnx", "onnxruntime"],
    "spelling_to_phonemes": ["g2p_en", "xkcdpass"],
    "many_series_dask": ["dask", "distributed"],
    "torch_training": ["torch"],
}
PRINTS = {
    "voice_activity": r"same decision in (\d+) of \1 chunks.*gpurnn, 1 thread +\d+\.\d us\nONNX Runtime",
    "spelling_to_phonemes": r"same phonemes for 2000 of 2000 words.*times as fast",
    "many_series_dask": r"100\.0% of those with a burst, 0\.0% of those without.*bits of one call: True",
    "torch_training": r"largest difference.*relative difference: \d\.\de-0[5-9]\n.*PyTorch \d+\.\d ms, gpurnn \d+\.\d ms",
}


def test_none_is_forgotten() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_example(name: str, tmp_path: Path) -> None:
    missing = [package for package in NEEDS[name] if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: pip install 'gpurnn[examples]'")
    arguments = ["30"] if name == "torch_training" else []
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    env = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(PRINTS[name], done.stdout, re.DOTALL), done.stdout
    assert not list(tmp_path.iterdir())
