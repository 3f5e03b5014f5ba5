"""The state of the arithmetic: kernels flush denormals and round to nearest, alike wherever they run and whatever their caller
has set, and leave the caller's arithmetic as it was."""

import ctypes
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers import Problem, assert_same_bits, leaves
from reference_cells import CELLS

import gpurnn

pytestmark = pytest.mark.usefixtures("together")
every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
MACHINE = platform.machine().lower()
X86, ARM = MACHINE in ("x86_64", "amd64", "i686", "i386"), MACHINE in ("aarch64", "arm64")
ROUNDINGS = (0x400, 0x800, 0xC00) if X86 else (0x400000, 0x800000, 0xC00000)  # of <fenv.h>: all but to nearest


def denormals_live() -> bool:
    """In this thread's arithmetic, on scalars and on vectors, as results and as operands."""
    for kind in (np.float32, np.float64):
        tiny = np.full(64, np.finfo(kind).tiny, kind)
        with np.errstate(under="ignore"):
            half = tiny * kind(0.5)
            if not ((half > 0).all() and (half * kind(2**20) > 0).all() and half[0] * kind(2) == tiny[0]):
                return False
    return float(np.finfo(np.float64).tiny) / 2 > 0


def faint(cell: str, dtype: str, B: int = 20) -> Problem:
    """Parameters and inputs whose products, states and gradients are denormal or nearly so."""
    p = Problem(cell, 5, B, 13, 40, dtype=dtype)
    least = float(np.finfo(dtype).tiny)
    p.x = (p.x * least).astype(dtype)
    p.dy = (p.dy * least).astype(dtype)
    for s in (*leaves(p.state), *leaves(p.dstate)):
        s *= np.dtype(dtype).type(4 * least)
    p.params = {name: a * np.dtype(dtype).type(0.1 if a.ndim > 1 else 0) for name, a in p.params.items()}
    return p


def calls(p: Problem) -> dict[str, Callable[[], Any]]:
    layer, stream = p.layer, p.layer.stream(p.x.shape[1])
    _, vjp = layer.vjp(p.x, p.state)
    arrays = (p.x[0], *(s[0] for s in leaves(p.state)), *p.params.values())
    cell = gpurnn.lstm_cell if p.cell == "lstm" else gpurnn.gru_cell
    return {
        "call": lambda: layer(p.x, p.state),
        "plain call": lambda: layer(p.x),
        "ragged call": lambda: layer(p.x, p.state, [3] * p.x.shape[1]),
        "vjp": lambda: layer.vjp(p.x, p.state),
        "gradients": lambda: vjp(p.dy, p.dstate),
        "step": lambda: stream.step(p.x[0]),
        "cell": lambda: cell(*arrays),
        "error": lambda: pytest.raises(ValueError, layer, p.x[..., 1:]),
    }


@every_cell
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_callers_arithmetic_stays_as_it_was(cell: str, threads: int) -> None:
    gpurnn.set_num_threads(threads)
    assert denormals_live()
    failed: list[str] = []

    def run() -> None:
        for dtype in ("float32", "float64"):
            for name, call in calls(faint(cell, dtype)).items():
                for _ in range(3):
                    call()
                    if not denormals_live():
                        failed.append(name)

    run()
    other = threading.Thread(target=run)
    other.start()
    other.join()
    assert not failed


@every_cell
@every_dtype
def test_alike_in_calls_streams_and_pool_threads(cell: str, dtype: str) -> None:
    found = []
    for threads in (1, 2, 3):
        gpurnn.set_num_threads(threads)
        p = faint(cell, dtype)
        y, state = p.run()
        found.append((y, state, p.gradients(), *[p.layer(p.x) for _ in range(2)]))
        stream = p.layer.stream(20, p.state)
        for t in range(5):
            assert_same_bits(stream.step(p.x[t]), y[t])
        alone, _ = p.layer(p.x[:, :1], type(p.state)(s[:, :1] for s in p.state) if cell == "lstm" else p.state[:, :1])
        assert_same_bits(alone, y[:, :1])
    for other in found[1:]:
        assert_same_bits(other, found[0])


@pytest.mark.skipif(not (X86 or ARM), reason="denormals are flushed on x86 and ARM only")
@every_cell
@every_dtype
@pytest.mark.parametrize("threads", [1, 2])
def test_no_denormal_comes_out(cell: str, dtype: str, threads: int) -> None:
    """From faint inputs the results are zero or normal."""
    gpurnn.set_num_threads(threads)
    p = faint(cell, dtype)
    tiny = np.finfo(dtype).tiny
    arrays = [*leaves(p.run()), *p.gradients().values(), p.layer.stream(20, p.state).step(p.x[0])]
    assert any(np.any(a != 0) for a in arrays)
    for a in arrays:
        with np.errstate(under="ignore"):
            assert not np.any((a != 0) & (np.abs(a) < tiny))
    reference, _ = p.expected()
    assert np.any((reference != 0) & (np.abs(reference) < tiny))


@every_cell
@every_dtype
def test_faint_inputs_are_as_good_as_none(cell: str, dtype: str) -> None:
    p = faint(cell, dtype)
    np.testing.assert_allclose(p.run()[0], p.expected()[0], rtol=0, atol=100 * np.finfo(dtype).tiny)


@contextmanager
def rounding(mode: int) -> Iterator[Callable[[], int]]:
    """This thread's arithmetic rounds another way inside; gives what asks for the mode."""
    libm = ctypes.CDLL(None)
    before = libm.fegetround()
    assert libm.fesetround(mode) == 0
    try:
        yield libm.fegetround
    finally:
        libm.fesetround(before)


@pytest.mark.skipif(os.name == "nt" or not (X86 or ARM), reason="fesetround's modes are known for x86 and ARM only")
@every_cell
@every_dtype
@pytest.mark.parametrize("mode", ROUNDINGS)
def test_the_callers_rounding_does_not_matter(cell: str, dtype: str, mode: int) -> None:
    """The same bits for any number of threads, of which only one is the caller's."""

    p = Problem(cell, 5, 20, 13, 40, dtype=dtype)

    def results() -> Any:
        stream = p.layer.stream(20, p.state)
        return p.run(), p.gradients(), p.layer(p.x), stream.step(p.x[0])

    gpurnn.set_num_threads(1)
    expected = results()
    for threads in (1, 2, 3):
        gpurnn.set_num_threads(threads)
        with rounding(mode) as current:
            found = results()
            assert current() == mode
        assert_same_bits(found, expected)
