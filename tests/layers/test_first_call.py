"""First calls import Numba and compile: what interrupts them, or keeps them from it, is told and leaves nothing broken."""

import os
import sys
from pathlib import Path

import pytest
from helpers import python

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals and fork")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache that has the kernels, so that a first call takes a second or two."""
    folder = str(tmp_path_factory.mktemp("warm"))
    python("from programs import cache; cache.first_call()", NUMBA_CACHE_DIR=folder, GPURNN_NUM_THREADS="1")
    return folder


@posix
@pytest.mark.parametrize("program", ["interrupted", "deep"])
def test_the_next_call_works_after_one_that_was_broken_off(program: str, warm: str) -> None:
    python(f"from programs import cache; cache.{program}()", NUMBA_CACHE_DIR=warm, GPURNN_NUM_THREADS="1")


@posix
def test_ctrl_c_while_a_kernel_is_compiled(tmp_path: Path) -> None:
    code = "from programs import cache; cache.ctrl_c()"
    told = [python(code, NUMBA_CACHE_DIR=str(tmp_path / str(index))) for index in range(3)]
    # what a handler raises within a finalizer, Python ignores: that may happen to one of them
    assert told.count("KeyboardInterrupt\n") >= 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's address space limit")
def test_too_little_address_space_is_said_before_llvm_aborts(tmp_path: Path) -> None:
    told = python("from programs import cache; cache.little_address_space()", NUMBA_CACHE_DIR=str(tmp_path))
    assert "48 MiB of address space" in told
    assert "RLIMIT_AS" in told


def test_numba_without_its_compiler_is_refused() -> None:
    """Twice, since an import that failed may be tried again."""
    code = """
import gpurnn, numpy as np
for _ in range(2):
    try:
        gpurnn.LSTM(3, 4)(np.zeros((2, 1, 3), np.float32))
    except RuntimeError as error:
        print(error)
"""
    told = python(code, NUMBA_DISABLE_JIT="1").splitlines()
    assert len(told) == 2
    assert all("NUMBA_DISABLE_JIT" in line for line in told)


def test_sources_that_are_not_installed_have_a_version() -> None:
    code = """
import importlib.metadata
def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = missing
import gpurnn
print(gpurnn.__version__)
"""
    assert python(code) == "0+unknown\n"
