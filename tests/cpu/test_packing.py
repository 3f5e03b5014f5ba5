"""Packed weights against loops that say what goes where."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import Floats
from hypothesis import given, settings
from hypothesis import strategies as st
from test_amx import needs_amx

from gpurnn_kernels.cpu.products.layout import Layout, Order, tail_vectors
from gpurnn_kernels.cpu.programs.packer import Packed, Packer, Sources
from gpurnn_kernels.cpu.programs.weights import Weights, Workspace
from gpurnn_kernels.spec import Spec

problems = given(
    hidden=st.integers(1, 40),
    columns=st.integers(1, 30),
    lanes=st.sampled_from([2, 4, 8, 16]),
    width=st.integers(1, 4),
    gates=st.sampled_from([(0, 1, 2, 3), (2, 0, 1), (0, 1), (1,)]),
    dtype=st.sampled_from(["float32", "float64"]),
)
few = settings(max_examples=60, derandomize=True, deadline=None)


def matrix(hidden: int, columns: int, dtype: str) -> Floats:
    return np.random.default_rng(0).standard_normal((4 * hidden, columns)).astype(dtype)


def pack(
    W: Floats,
    gates: Sequence[int],
    hidden: int,
    lanes: int,
    width: int,
    tail: int = 0,
    order: Order = "forward",
) -> Floats:
    layout = Layout("W", tuple(gates), hidden, W.shape[1], lanes, width, tail, order)
    return packed_by(Packer({"W": layout}, "W", W.dtype, 1), {"W": W}).arrays["W"]


def packed_by(packer: Packer, parameters: dict[str, Floats]) -> Packed:
    packed = Packed.of(packer.allocate())
    packer.pack(Sources.of(parameters), packed)
    return packed


def padded(W: Floats, gate: int, unit: int, hidden: int) -> Floats:
    """A unit's row of a gate."""
    return W[gate * hidden + unit] if unit < hidden else np.zeros_like(W[0])


@few
@problems
def test_forward(hidden: int, columns: int, lanes: int, width: int, gates: Sequence[int], dtype: str) -> None:
    W = matrix(hidden, columns, dtype)
    count = -(-hidden // lanes)
    vectors = [(block, gate) for block in range(count) for gate in gates]
    expected = [
        padded(W, gate, block * lanes + lane, hidden)[k]
        for first in range(0, len(vectors), width)
        for k in range(columns)
        for block, gate in vectors[first : first + width]
        for lane in range(lanes)
    ]
    assert pack(W, gates, hidden, lanes, width).tolist() == expected


@few
@problems
def test_backward(hidden: int, columns: int, lanes: int, width: int, gates: Sequence[int], dtype: str) -> None:
    W = matrix(hidden, columns, dtype)
    count = -(-columns // lanes) * lanes
    expected = [
        padded(W, gate, block * lanes + lane, hidden)[k] if k < columns else 0
        for start in range(0, count, width * lanes)
        for block in range(-(-hidden // lanes))
        for gate in gates
        for lane in range(lanes)
        for k in range(start, min(start + width * lanes, count))
    ]
    assert pack(W, gates, hidden, lanes, width, order="backward").tolist() == expected


@few
@given(
    hidden=st.integers(1, 40),
    lanes=st.sampled_from([4, 8, 16]),
    panels=st.sampled_from([((0, 1, 2, 3), 4), ((0, 1, 2, 3), 2), ((2, 0, 1), 3)]),
)
def test_units_left_over_share_vectors(hidden: int, lanes: int, panels: tuple[Sequence[int], int]) -> None:
    gates, width = panels
    vectors = tail_vectors(len(gates), hidden, lanes)
    left = hidden % lanes
    assert vectors * lanes >= len(gates) * left or not vectors
    assert vectors < len(gates)
    if not vectors:
        return
    W = matrix(hidden, 5, "float32")[: len(gates) * hidden]
    got = pack(W, gates, hidden, lanes, width, tail=vectors)
    whole = hidden // lanes
    in_whole = pack(W, gates, hidden, lanes, width)[: whole * len(gates) * lanes * 5]
    assert np.array_equal(got[: in_whole.size], in_whole)
    for k, row in enumerate(got[in_whole.size :].reshape(5, -1)):
        shared = [W[gate * hidden + whole * lanes + unit, k] for gate in range(len(gates)) for unit in range(left)]
        assert row.tolist() == shared + [0] * (vectors * lanes - len(shared))


@pytest.mark.parametrize("order", ["forward", "backward", pytest.param("strips", marks=needs_amx)])
def test_threads_pack_the_same(order: Order) -> None:
    W = matrix(300, 310, "float32")
    layouts = {
        name: Layout(name, gates, 300, 310, 16, width, order=order)
        for name, gates, width in (("W", (0, 1, 2, 3), 4), ("W_n", (2,), 2))
    }
    parameters = {"W": W, "W_n": W[:900]}
    alone = packed_by(Packer(layouts, parameters, W.dtype, 1), parameters).arrays
    for threads in (2, 3):
        together = Packer(layouts, parameters, W.dtype, threads)
        for _ in range(2):
            packed = packed_by(together, parameters).arrays
            for name in layouts:
                assert packed[name].tobytes() == alone[name].tobytes()


def test_two_first_calls_at_once_run_on_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them packs in vain, on weights that would be gone while it runs if it gave them up."""
    both, pack_all = threading.Barrier(2), Packer.pack

    def pack_at_once(self: Packer, *args: Any) -> None:
        pack_all(self, *args)
        both.wait(10)

    monkeypatch.setattr(Packer, "pack", pack_at_once)
    parameters = {"W_x": matrix(7, 3, "float32"), "W_h": matrix(7, 7, "float32"), "b": matrix(7, 1, "float32")[:, 0]}
    weights = Weights(Spec("lstm", 3, 7, np.dtype(np.float32)), parameters, Workspace())
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: weights.forward(), range(2))
    assert one is other
    assert one.addresses == {name: array.ctypes.data for name, array in one.arrays.items()}
