"""Rules of the CUDA backend's rooms, and the records that its kernels take."""

import ast
from pathlib import Path

import pytest
from cuda_compiler import needs_compiler
from helpers import emulated_device
from house import Package, Rule, imported, parsed, written

import gpurnn_kernels
from gpurnn_kernels.spec import CELL_SHAPES

CUDA = Package(Path(gpurnn_kernels.__file__).parent / "cuda", "gpurnn_kernels.cuda")
NAMED_BY = {"numba": "compiler", "llvmlite": "intrinsics.llvm"}  # libraries, and the one module that names each


def libraries_elsewhere(package: Package) -> list[str]:
    """Imports of a library by another module than its own, and libraries that their module does not import."""
    users = {
        (start.partition(".")[0], module.removeprefix(f"{package.name}."))
        for module, path in package.modules().items()
        for start, _ in imported(module, path)
    }
    named = {user for user in users if user[0] in NAMED_BY}
    return [f"{module}: {library}" for library, module in sorted(named ^ set(NAMED_BY.items()))]


def questions_for_the_cell(package: Package) -> list[str]:
    """Places outside `cells` that ask which cell a layer has, or name one. A text may tell its name, an argument `cell` may
    hand it on, and its row in the table of cells is there for all."""
    found = []
    for module, path in package.modules().items():
        tree = parsed(path)
        told = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            or (isinstance(node, ast.keyword) and node.arg == "cell")
            or (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "CELL_SHAPES")
            for inner in ast.walk(node)
        }
        found += [
            f"{module}, line {node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if (isinstance(node, ast.Attribute) and node.attr == "cell" and id(node) not in told)
            or (isinstance(node, ast.Constant) and node.value in CELL_SHAPES)
            if "cells" not in module.split(".")
        ]
    return found


RULES: tuple[Rule, ...] = (libraries_elsewhere, questions_for_the_cell)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rules_of_rooms(rule: Rule) -> None:
    assert rule(CUDA) == []


KEPT = {
    "compiler.py": "import numba.cuda",
    "intrinsics/llvm.py": "from llvmlite import ir",
    "cells/a.py": "def f(spec):\n    return spec.cell == 'lstm'",
    "engine.py": "def f(spec):\n    return f'{spec.cell}: {CELL_SHAPES[spec.cell].gates}', g(cell=spec.cell), 'the lstm'",
}
BROKEN = {
    libraries_elsewhere: [
        {**KEPT, "run.py": "def f():\n    import numba"},
        {**KEPT, "intrinsics/tile.py": "from llvmlite import ir"},
        {**KEPT, "compiler.py": "import numba_cuda_mlir"},
    ],
    questions_for_the_cell: [
        {"run.py": "def f(spec):\n    return spec.cell in NAMES"},
        {"run.py": "def f(spec):\n    return TABLE[spec.cell]"},
        {"run.py": "def f(name):\n    return name == 'gru_after'"},
        {"run.py": "TABLE = {'lstm': 4}"},
    ],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_of_rooms_sees_what_breaks_it(rule: Rule, tmp_path: Path) -> None:
    for n, files in enumerate(BROKEN[rule]):
        assert len(rule(written(tmp_path / f"broken_{n}", files))) == 1, files
    assert rule(written(tmp_path / "kept", KEPT)) == []


def test_rooms_are_found() -> None:
    assert {"gpurnn_kernels.cuda.engine", "gpurnn_kernels.cuda.persistent.run"} <= set(CUDA.modules())


@needs_compiler
def test_another_kernels_record_is_refused() -> None:
    from gpurnn_kernels.cuda.pointwise.form import Variant
    from gpurnn_kernels.cuda.pointwise.gru_after import gru_after_forward
    from gpurnn_kernels.cuda.pointwise.lstm import LstmForward, lstm_forward

    variant, given = Variant(8, 32, 4), LstmForward(*range(len(LstmForward._fields)))
    assert emulated_device().launcher(lstm_forward(variant), (1, 1), given)
    with pytest.raises(TypeError, match="expected a GruAfterForward, got a LstmForward"):
        emulated_device().launcher(gru_after_forward(variant), (1, 1), given)
