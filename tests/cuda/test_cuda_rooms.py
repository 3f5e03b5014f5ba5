"""Rules of the CUDA backend's rooms, and the records that its kernels take."""

import ast
from pathlib import Path

import pytest

from ptx_emulator.compile import why_not

if why := why_not():
    pytest.skip(why, allow_module_level=True)

from helpers import emulated_device

from gpurnn_kernels import cuda as backend
from gpurnn_kernels.cuda.pointwise.gru_after import gru_after_forward
from gpurnn_kernels.cuda.pointwise.lstm import LstmForward, lstm_forward

FOLDER = Path(str(backend.__file__)).parent


def sources() -> dict[str, ast.Module]:
    return {path.relative_to(FOLDER).as_posix(): ast.parse(path.read_text("utf-8")) for path in FOLDER.rglob("*.py")}


def libraries(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


def test_one_module_names_the_compiler_and_one_llvm() -> None:
    users = {
        library: [name for name, tree in sources().items() if library in libraries(tree)] for library in ("numba", "llvmlite")
    }
    assert users == {"numba": ["compiler.py"], "llvmlite": ["intrinsics/llvm.py"]}


def test_another_kernels_record_is_refused() -> None:
    from gpurnn_kernels.cuda.pointwise.form import Variant

    variant, given = Variant(8, 32, 4), LstmForward(*range(len(LstmForward._fields)))
    assert emulated_device().launcher(lstm_forward(variant), (1, 1), given)
    with pytest.raises(TypeError, match="expected a GruAfterForward, got a LstmForward"):
        emulated_device().launcher(gru_after_forward(variant), (1, 1), given)
