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
from programs import processes

import gpurnn
from gpurnn_kernels.cpu.codegen.target import describe, target

AVX2 = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+f16c,+movbe"
AVX512 = f"{AVX2},+avx512f,+avx512dq,+avx512vl,+avx512bw,+avx512cd"
RUNS = {
    name: (f"processes.{program}()", {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features})
    for name, program, cpu, features in (
        ("avx512", "precisions", "skylake-avx512", AVX512),
        ("avx2", "target", "haswell", AVX2),
        ("avx2 with vnni", "precisions", "haswell", f"{AVX2},+avxvnni"),
        ("generic", "target", "x86-64", ""),
    )
}
RUNS |= {"aarch64": ("processes.aarch64()", {}), "aarch64 with dotprod": ("processes.aarch64('+dotprod')", {})}
X86 = platform.machine().lower() in ("x86_64", "amd64")
MEMORY = {"memcpy", "memset", "memmove"}  # all that kernels may call


def is_this() -> bool:
    """True where all other tests run as compiled for AVX2."""
    return (target().vector_bytes, target().fma) == (32, True)


def runs_here(name: str) -> bool:
    """Tells whether this processor has what a run is compiled for, and other tests are not."""
    host = llvm.get_host_cpu_features()
    needed = [feature[1:] for feature in RUNS[name][1]["NUMBA_CPU_FEATURES"].split(",") if feature]
    return all(host.get(feature) for feature in needed) and not (name == "avx2" and is_this())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Callable[[], Any]]]:
    """The programs' findings. They compile for long, so that they start together."""
    folder = tmp_path_factory.mktemp("kernels")
    running = {}
    for name, (code, environment) in RUNS.items():
        if name.startswith("aarch64") or (X86 and runs_here(name)):
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
@pytest.mark.parametrize(
    ("name", "vector_bytes", "dot"),
    [("avx512", 64, "pmaddwd"), ("avx2", 32, "pmaddwd"), ("avx2 with vnni", 32, "vpdpbusd"), ("generic", 16, "pmaddwd")],
)
def test_running_on(name: str, vector_bytes: int, dot: str, runs: dict[str, Callable[[], Any]]) -> None:
    if not runs_here(name):
        pytest.skip("this processor cannot, or the other tests run as compiled for it")
    found = runs[name]()
    fma = name != "generic"
    assert (found["vector_bytes"], found["fma"], found["dot"], found["bf16"]) == (vector_bytes, fma, dot, False)
    if "called" in found:
        assert (found["fused"] > 0) == fma
        assert set(found["called"]) <= MEMORY  # no fmaf above all


@pytest.mark.skipif(not (X86 and runs_here("avx512")), reason="the processor has no AVX-512")
def test_precisions_have_the_same_bits_without_instructions_of_their_own(runs: dict[str, Callable[[], Any]]) -> None:
    gpurnn.set_num_threads(1)
    assert target().vector_bytes == 64
    assert runs["avx512"]()["precisions"] == processes.in_precisions()


@pytest.mark.parametrize("features", ["", " with dotprod"])
def test_lowering_for_aarch64(features: str, runs: dict[str, Callable[[], Any]]) -> None:
    found = runs[f"aarch64{features}"]()
    assert len(found) >= (4 if features else 40)
    assert (found["tile_int8_4"]["sdot"] > 0) == bool(features)
    for name, kernel in found.items():
        assert set(kernel["called"]) <= MEMORY, name
        assert kernel["x86"] == 0, name
        # the loops around these call them by address
        assert kernel["fused"] > 10 or not re.search("tile(?!_int8)|step(?!_back|s)", name), name
    if features:
        return
    assert set(found["serve"]["modes"]) == {"msr"}  # set for the worker's life
    for name in ("forward", "gru_before_step", "lstm_step_back", "serve"):
        assert found[name]["hints"], name
        assert found[name]["acquires"], name


@pytest.mark.parametrize(
    ("triple", "features", "vector_bytes", "registers", "fma"),
    [
        ("x86_64-unknown-linux-gnu", "+avx2,+fma,+avx512f,+avx512dq,+avx512vl,-avx512bw", 64, 32, True),
        ("x86_64-unknown-linux-gnu", f"{AVX512},+avx512vnni,+avx512bf16", 64, 32, True),
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
        rows = found.tile_rows(vectors, split=True)
        assert rows * vectors + 2 * min(rows, vectors) + 2 <= registers, "each of these takes two registers"
