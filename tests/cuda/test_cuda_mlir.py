"""numba-cuda-mlir, which is to follow numba-cuda, compiles every kernel, as well as numba-cuda does."""

import ast
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cuda_compiler import REASON

if REASON:
    pytest.skip(f"no CUDA compiler: {REASON}", allow_module_level=True)
if find_spec("numba_cuda_mlir") is None:  # importing it here would load a second LLVM
    pytest.skip("numba-cuda-mlir is not installed: pip install 'gpurnn[mlir]' brings it", allow_module_level=True)

from helpers import python
from house import parsed
from programs import cuda_cards
from programs.cuda_cards import card_of, kernels

import gpurnn_kernels

MORE_REGISTERS = 16  # a thread, the most that numba-cuda-mlir 0.6.0 takes beyond numba-cuda's
PROGRAM = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import mlir_compiler
mlir_compiler.install()
from programs.cuda_cards import cards
print(json.dumps(cards()))
"""


@pytest.mark.timeout(1800)
def test_registers_and_spills() -> None:
    found = json.loads(python(PROGRAM, json.dumps(sys.path), timeout=1200).splitlines()[-1])
    assert not {name: one["error"] for name, one in found.items() if "error" in one}
    expected = {name: card_of(kernel) for name, kernel in kernels()}
    assert found.keys() == expected.keys()
    pairs = {name: (one, expected[name]) for name, one in found.items()}
    assert not {name: pair for name, pair in pairs.items() if pair[0]["spills"] > pair[1]["spills"]}
    assert not {name: pair for name, pair in pairs.items() if pair[0]["registers"] > pair[1]["registers"] + MORE_REGISTERS}


def test_every_kernel_is_among_them() -> None:
    makers = {
        node.name
        for path in (Path(gpurnn_kernels.__file__).parent / "cuda").rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef) and node.decorator_list and node.returns and ast.unparse(node.returns) == "Kernel"
    }
    nodes = list(ast.walk(parsed(Path(cuda_cards.__file__))))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named |= {node.id for node in nodes if isinstance(node, ast.Name)}
    assert len(makers) > 10
    assert makers <= named
