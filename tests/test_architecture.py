"""The house: who imports whom, what an import costs, and what stays quiet."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from helpers import BACKENDS, TESTS, python

import gpurnn
import gpurnn_kernels

KERNELS = Path(gpurnn_kernels.__file__).parent
LIBRARY = Path(gpurnn.__file__).parent


def imports(path: Path, package: Path) -> Iterator[str]:
    """The absolute names of the modules that a file imports."""
    inside = (package.name, *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def all_imports(package: Path) -> dict[str, set[str]]:
    return {str(path.relative_to(package)): set(imports(path, package)) for path in package.rglob("*.py")}


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_imports_run_one_way() -> None:
    for file, modules in all_imports(KERNELS).items():
        assert not any(within(module, "gpurnn", "bench", "tests") for module in modules), file
    tests = "tests", "conftest", "reference", "reference_cells"
    for file, modules in all_imports(LIBRARY).items():
        assert not any(within(module, "bench", *tests) for module in modules), file


def test_bench_and_emulator_import_nothing_from_the_tests() -> None:
    """Both run without them; but pytest puts the folders of tests on the path, so that a wrong import would work here."""
    of_tests = {path.stem for path in TESTS.rglob("*.py")} - {"__init__"} | {"tests", "programs"}
    for package in (TESTS.parent / "bench", TESTS.parent / "emulator" / "ptx_emulator"):
        found = all_imports(package)
        assert found
        for file, modules in found.items():
            assert not {module.partition(".")[0] for module in modules} & of_tests, file
    for file, modules in all_imports(TESTS.parent / "emulator" / "ptx_emulator").items():
        assert not any(within(module, "gpurnn", "bench") for module in modules), file


def test_backends_know_the_cells_but_not_each_other() -> None:
    for file, modules in all_imports(KERNELS).items():
        others = {"cpu": "cuda", "cuda": "cpu"}.get(Path(file).parts[0])
        if others:
            assert not any(within(module, f"gpurnn_kernels.{others}") for module in modules), file
        else:
            assert not any(within(module, "gpurnn_kernels.cpu", "gpurnn_kernels.cuda") for module in modules), file


def test_no_cached_property_has_a_lock() -> None:
    """A forked child would find the lock of `functools.cached_property` held for ever, in Python 3.11."""
    for package in (KERNELS, LIBRARY):
        for file, modules in all_imports(package).items():
            assert "functools.cached_property" not in modules, file


def test_the_reference_is_independent() -> None:
    for name in ("reference.py", "reference_cells.py"):
        assert not any(within(module, "gpurnn", "gpurnn_kernels") for module in imports(TESTS / name, TESTS))


def test_only_one_file_knows_processor_families() -> None:
    """Beside the one that describes targets, and the instructions of AMX and of numbers of fewer bits."""
    for path in (KERNELS / "cpu").rglob("*.py"):
        if path.relative_to(KERNELS / "cpu").as_posix() not in (
            "codegen/arch.py",
            "codegen/target.py",
            "products/amx/instructions.py",
            "products/formats/instructions.py",
        ):
            assert not re.search(r"llvm\.(x86|aarch64|arm)\b|mxcsr", path.read_text(encoding="utf-8").lower()), path


HEAVY = [
    "numba",
    "llvmlite",
    "cupy",
    "numba_cuda",
    "torch",
    "safetensors",
    "rich",
    "matplotlib",
    "gpurnn_kernels.cpu.programs.call",  # with all of the CPU backend
    "gpurnn_kernels.cuda",
]


def test_an_import_is_light() -> None:
    """Numba is imported at first use, CuPy only with a CuPy array, the rest by who needs it."""
    code = f"import sys, json, gpurnn; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert json.loads(python(code)) == []
    construct = "gpurnn.LSTM(3, 4, seed=0); gpurnn.GRU(3, 4).params; repr(gpurnn.GRU(3, 4))"
    assert json.loads(python(code.replace("print", f"{construct}; print"))) == []


def test_a_call_imports_no_gpu_libraries() -> None:
    code = """
import json, sys
import numpy as np, gpurnn
before = np.geterr(), np.get_printoptions()
layer, x = gpurnn.LSTM(3, 4), np.zeros((2, 1, 3), np.float32)
layer(x), layer.vjp(x)[1](x[..., :1].repeat(4, -1)), layer.plan(x), layer.stream().step(x[0])
assert (np.geterr(), np.get_printoptions()) == before
heavy = "cupy", "numba.cuda", "numba_cuda", "gpurnn_kernels.cuda", "torch", "scipy"
print(json.dumps([m for m in heavy if m in sys.modules]))
"""
    assert json.loads(python(code)) == []


def test_the_library_never_prints() -> None:
    code = """
import sys
import numpy as np, gpurnn
layer = gpurnn.GRU(3, 4, 2, bidirectional=True)
layer.vjp(np.zeros((2, 1, 3), np.float32))[1](None)
layer.plan(np.zeros((2, 1, 3), np.float32))
"""
    assert python(code) == ""
    for path in LIBRARY.rglob("*.py"):
        if path.relative_to(LIBRARY).parts[0] not in ("cli", "demo", "__main__.py"):
            calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
            assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls), path


def test_the_cpu_backend_has_what_the_protocol_asks() -> None:
    from gpurnn_kernels import cpu

    assert_is_a_backend(cpu)


def test_the_cuda_backend_has_what_the_protocol_asks() -> None:
    if why := BACKENDS["cuda-emulated"].missing():
        pytest.skip(why)
    from gpurnn_kernels import cuda

    assert_is_a_backend(cuda)


def assert_is_a_backend(module: Any) -> None:
    from gpurnn_kernels import protocol

    for name in vars(protocol.Kernels):
        if not name.startswith("_"):
            assert callable(getattr(module, name)), name


CLASSES = ["Captured", "GRU", "Gradients", "LSTM", "Plan", "RecurrentLayer", "Stream"]
READERS = ["from_keras", "from_onnx", "from_torch", "load"]
FUNCTIONS = ["get_num_threads", "gru_cell", "list_onnx", "lstm_cell", "set_num_threads", "threads"]


@pytest.mark.parametrize("name", [*CLASSES, *READERS, *FUNCTIONS])
def test_public_names_are_documented(name: str) -> None:
    assert getattr(gpurnn, name).__doc__


@pytest.mark.parametrize("name", READERS)
def test_readers_say_which_layers_they_give(name: str) -> None:
    assert get_type_hints(getattr(gpurnn, name))["return"] == gpurnn.LSTM | gpurnn.GRU


TYPED = """
import gpurnn
from typing import assert_type
from gpurnn_kernels.spec import Array
lstm, gru = gpurnn.LSTM(3, 4), gpurnn.GRU(3, 4)
def types(x: Array) -> None:
    assert_type(lstm(x), tuple[Array, tuple[Array, Array]])
    assert_type(gru(x), tuple[Array, Array])
    assert_type(lstm.vjp(x)[0], tuple[Array, tuple[Array, Array]])
    assert_type(lstm.vjp(x)[1](x).state, tuple[Array, Array])
    assert_type(gru.vjp(x)[1](x), gpurnn.Gradients[Array])
    assert_type(gru.stream().state, Array)
    assert_type(gru.plan(x), gpurnn.Plan)
    assert_type(lstm.stream().capture(), gpurnn.Captured)
    assert_type(gpurnn.load("x"), gpurnn.LSTM | gpurnn.GRU)
"""


def test_what_layers_give_is_typed(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    file = tmp_path / "typed.py"
    file.write_text(TYPED, encoding="utf-8")
    said, errors, status = api.run(
        ["--strict", "--config-file=", f"--cache-dir={tmp_path}", "--follow-imports=silent", str(file)]
    )
    assert (said.partition("\n")[0], errors, status) == ("Success: no issues found in 1 source file", "", 0)


def test_warmup_compiles_every_kernel() -> None:
    """Nothing is left to be compiled by a first call."""
    from gpurnn_kernels.cpu import warmup
    from gpurnn_kernels.cpu.codegen import compile as compiling
    from gpurnn_kernels.cpu.programs.call import entry_of

    told: list[tuple[int, int, str]] = []
    warmup(lambda *progress: told.append(progress))
    assert [done for done, _, _ in told] == list(range(len(told)))
    assert told[-1][0] == told[-1][1]
    known, entries = set(compiling._addresses), entry_of.cache_info().currsize
    for reset_after in (False, True):
        for dtype in ("float32", "float64"):
            for layer in (gpurnn.LSTM(3, 4, dtype=dtype), gpurnn.GRU(3, 4, reset_after=reset_after, dtype=dtype)):
                x = np.zeros((2, 1, 3), dtype)
                layer(x), layer.vjp(x)[1](None), layer.stream().step(x[0])
    assert set(compiling._addresses) == known
    assert entry_of.cache_info().currsize == entries
