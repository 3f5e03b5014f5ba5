"""Memory that calls use again."""

import sys

import numpy as np
import pytest
from helpers import Floats, leaves, new_layer, started
from reference_cells import CELLS

from gpurnn_kernels.cpu.programs.buffers import Arrays, Bound, BufferPool, _Lease
from gpurnn_kernels.cpu.programs.saved import SavedDirection
from gpurnn_kernels.cpu.programs.weights import Weights

F32 = np.dtype(np.float32)
LARGE = (3, 1 << 17)  # enough to be leased


def test_a_pool_counts_what_it_holds() -> None:
    bound = Bound(100)
    pool: BufferPool[Floats] = BufferPool(bound, lambda array: array.nbytes)
    for turn in range(50):
        pool.give(turn % 3, np.zeros(5))
        if turn % 4 == 0:
            pool.take(turn % 2)
        assert sum(one.nbytes for things in bound.free.values() for one, _ in things) == bound.bytes <= 100


@pytest.mark.parametrize("kept", [2, 3])
def test_a_pool_keeps_what_was_given_last(kept: int) -> None:
    pool: BufferPool[Floats] = BufferPool(Bound(kept * 8), lambda array: array.nbytes)
    things = [np.zeros(1) for _ in range(4)]
    for key, thing in enumerate(things):
        pool.give(key, thing)
    for key, thing in enumerate(things):
        found = pool.take(key)
        assert found is (thing if key >= 4 - kept else None)
        assert pool.take(key) is None


def test_pools_share_a_bound() -> None:
    bound = Bound(3 * 8)
    one, other = (BufferPool[Floats](bound, lambda array: array.nbytes) for _ in range(2))
    first, second, third = (np.zeros(1) for _ in range(3))
    one.give("key", first)
    other.give("key", second)
    other.give("another", third)
    assert one.take("key") is first
    one.give("key", first)  # used again: what lies on the other pool is older now
    one.give("another", np.zeros(1))
    assert other.take("key") is None
    assert other.take("another") is third
    assert one.take("key") is first


def test_things_go_with_their_pool() -> None:
    bound = Bound(1 << 20)
    pool, other = (BufferPool[Floats](bound, lambda array: array.nbytes) for _ in range(2))
    pool.give("key", np.zeros(3))
    other.give("key", np.zeros(5))
    del pool
    assert (bound.bytes, len(bound.free)) == (5 * 8, 1)


def test_leased_memory_comes_back_when_nobody_looks_at_it() -> None:
    arrays = Arrays(1 << 30)
    array = arrays.lease(LARGE, F32)
    assert array.shape == LARGE
    assert array.dtype == F32
    assert array.flags.carray
    at, view = array.ctypes.data, array[1:, ::2]
    del array
    other = arrays.lease(LARGE, F32)
    assert other.ctypes.data != at
    del view
    assert arrays.lease(LARGE, F32).ctypes.data == at


def test_what_is_small_is_not_leased() -> None:
    assert Arrays(1 << 30).lease((3, 4), F32).flags.owndata


@pytest.mark.parametrize("cell", CELLS)
def test_results_stay_while_somebody_looks_at_them(cell: str) -> None:
    layer = new_layer(cell, 256, 128, num_layers=2)

    def results(x: Floats) -> list[Floats]:
        out, vjp = layer.vjp(x)
        gradients = vjp(x[..., :128])
        return [*leaves(out), gradients.x, *leaves(gradients.state), *gradients.params.values()]

    x = np.random.default_rng(0).standard_normal((40, 16, 256)).astype(F32)
    found = results(x)
    before = [array.copy() for array in found]
    assert sum(not array.flags.owndata for array in found) > 4
    found = [array[::-1] for array in found]
    for factor in (2, 3, 4):
        results(factor * x)
    for array, expected in zip(found, before, strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(array[::-1], expected)


@pytest.mark.parametrize("kind", [_Lease, SavedDirection, Weights])
def test_a_constructor_that_fails_says_so_alone(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that gives its memory back when it goes has none yet: no "Exception ignored in ..." on standard error."""
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(TypeError):
        kind()
    assert ignored == []


def test_nothing_is_said_at_exit() -> None:
    """Arrays that still lie in the pool, are leased or hold memory go quietly with the interpreter, in whatever order."""
    code = """
import ctypes, sys
import numpy as np, gpurnn
x = np.zeros((40, 16, 256), np.float32)
layer = gpurnn.LSTM(256, 128, num_layers=2)
out, vjp = layer.vjp(x)
held = layer(x), vjp(None), layer.stream(16), layer.vjp(x)
for name, module in sys.modules.items():
    if name.startswith("gpurnn"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))  # so that what it refers to goes one by one, at the end
"""
    process = started(code)
    assert process.communicate(timeout=240) == ("", "")
    assert process.returncode == 0
