"""The Python code of README.md, docs/ and emulator/README.md runs as it stands there.

A comment `<!-- test: NAME -->` above a block says what it takes for granted: see `GIVEN`. Blocks of one document share what
earlier ones import.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from helpers import BACKENDS, TESTS

import gpurnn

ROOT = TESTS.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "emulator" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: ([\w ]+) -->\n)?^ *```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def trained_models() -> dict[str, Any]:
    """A model of PyTorch's, and files of Keras's and ONNX's, in the current folder."""
    torch = pytest.importorskip("torch")
    for module in ("h5py", "onnx"):
        pytest.importorskip(module)
    import keras_reference
    import onnx
    import onnx_models

    weights = keras_reference.draw("GRU", 4, 6, "two")
    layers = {"gru_1": keras_reference.named("gru_1/gru_1", weights)}
    keras_reference.write(Path("weights.h5"), layers, keras_version="2.3.1")
    onnx.save(onnx_models.simple(name="decoder/rnn"), "model.onnx")
    return {"model": torch.nn.ModuleDict({"encoder": torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4)})})}


def a_mask() -> dict[str, Any]:
    """A layer, its input, and the tokens that the input was made of."""
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)  # (B, T, I)
    tokens = np.array([[7, 1, 3, 0, 0], [4, 4, 0, 0, 0]])
    return {"layer": gpurnn.GRU(3, 4, batch_first=True, seed=0), "x": x, "tokens": tokens}


def a_gpu() -> dict[str, Any]:
    if why := BACKENDS["cuda"].missing():
        pytest.skip(f"cuda: {why}")
    return {}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "": dict,
    "trained models": trained_models,
    "a mask": a_mask,
    "a GPU": a_gpu,
}


def blocks() -> Iterator[Any]:
    """Each block of code: what it takes for granted, its code, and the code above it."""
    for document in DOCUMENTS:
        before = ""
        for number, found in enumerate(BLOCK.finditer(document.read_text(encoding="utf-8"))):
            given, code = found[1] or "", dedent(found[2])
            marks = pytest.mark.gpu if given == "a GPU" else ()
            yield pytest.param(given, code, before, marks=marks, id=f"{document.relative_to(ROOT)}-{number}")
            before += code


@pytest.mark.parametrize(("given", "code", "before"), list(blocks()))
def test_code_runs(given: str, code: str, before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = GIVEN[given]()
    for statement in ast.parse(before).body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            exec(ast.unparse(statement), names)
    exec(compile(code, "block", "exec"), names)


def test_every_block_is_seen() -> None:
    """A fence that the pattern does not match would leave its code out."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert len(BLOCK.findall(text)) == len(re.findall(r"^\s*(?:```|~~~)\s*py", text, re.MULTILINE)), document
