"""The kernels as compiled for other processors: run where this one can, else lowered to assembly."""

import functools
import json
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import pytest
from helpers import end, finished, started

from gpurnn_kernels.cpu.codegen.target import describe, target

AVX2 = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+f16c,+movbe"
RUNS = {
    "avx2": ("processes.target()", {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2}),
    "generic": ("processes.target()", {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}),
    "aarch64": ("processes.aarch64()", {}),
}
X86 = platform.machine().lower() in ("x86_64", "amd64")
MEMORY = {"memcpy", "memset", "memmove"}  # all that kernels may call


def is_this() -> bool:
    """True where all other tests run as compiled for AVX2."""
    return (target().vector_bytes, target().fma) == (32, True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Callable[[], Any]]]:
    """The programs' findings. They compile for long, so that they start together."""
    folder = tmp_path_factory.mktemp("kernels")
    running = {}
    for name, (code, environment) in RUNS.items():
        if name == "aarch64" or (X86 and not (name == "avx2" and is_this())):
            running[name] = started(
                f"from programs import processes; {code}", NUMBA_CACHE_DIR=str(folder / name), **environment
            )
    yield {name: functools.partial(told, process) for name, process in running.items()}
    for process in running.values():
        if process.poll() is None:
            end(process)
            process.communicate()


def told(process: subprocess.Popen[str]) -> Any:
    return json.loads(finished(process, 240))


@pytest.mark.skipif(not X86, reason="runs on x86-64 only")
@pytest.mark.parametrize(("name", "vector_bytes", "fma"), [("avx2", 32, True), ("generic", 16, False)])
def test_running_on(name: str, vector_bytes: int, fma: bool, runs: dict[str, Callable[[], Any]]) -> None:
    host = llvm.get_host_cpu_features()
    if fma and not (host.get("avx2") and host.get("fma")):
        pytest.skip("this processor has no AVX2 and FMA")
    if name == "avx2" and is_this():
        pytest.skip("the other tests run as compiled for AVX2")
    found = runs[name]()
    assert found["vector_bytes"] == vector_bytes
    assert found["fma"] == fma
    assert (found["fused"] > 0) == fma
    assert set(found["called"]) <= MEMORY  # no fmaf above all


def test_lowering_for_aarch64(runs: dict[str, Callable[[], Any]]) -> None:
    found = runs["aarch64"]()
    assert len(found) > 24
    for name, kernel in found.items():
        assert set(kernel["called"]) <= MEMORY, name
        assert kernel["x86"] == 0, name
        # the loops around these call them by address
        assert kernel["fused"] > 10 or not re.search("tile|step(?!_back|s)", name), name
    assert set(found["serve"]["modes"]) == {"msr"}  # set for the worker's life
    for name in ("forward", "gru_before_step", "lstm_step_back", "serve"):
        assert found[name]["hints"], name
        assert found[name]["acquires"], name


@pytest.mark.parametrize(
    ("triple", "features", "vector_bytes", "registers", "fma"),
    [
        ("x86_64-unknown-linux-gnu", "+avx2,+fma,+avx512f,+avx512dq,+avx512vl,-avx512bw", 64, 32, True),
        ("x86_64-unknown-linux-gnu", "+avx2,+fma,+avx512f,-avx512vl,-avx512dq", 32, 16, True),
        ("x86_64-unknown-linux-gnu", "+avx2,+fma,-avx512f", 32, 16, True),
        ("x86_64-pc-windows-msvc", "+avx2,-fma", 32, 16, False),
        ("x86_64-unknown-linux-gnu", "+avx,+sse4.2,-avx2,-fma", 16, 16, False),
        ("x86_64-unknown-linux-gnu", "", 16, 16, False),
        ("aarch64-unknown-linux-gnu", "+neon", 16, 32, True),
        ("arm64-apple-darwin25.0.0", "", 16, 32, True),
    ],
)
def test_what_a_target_can_do(triple: str, features: str, vector_bytes: int, registers: int, fma: bool) -> None:
    found = describe(triple, "some", features)
    assert (found.vector_bytes, found.registers, found.fma) == (vector_bytes, registers, fma)
    for vectors in (1, 2, 3, 4):
        rows = found.tile_rows(vectors)
        assert rows * vectors + min(rows, vectors) + 1 <= registers, "a tile's sums, weights and broadcast stay in registers"
