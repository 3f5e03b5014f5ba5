"""Gradients by AMX, where the processor has it: against the reference, and the promises. Small ones take it only when told."""

import numpy as np
import pytest
from helpers import GRADIENTS, LAYERS, Problem, assert_gradients_near, assert_same_bits, named, python
from numba import njit
from problems import SIZES, every_cell, every_option
from reference_cells import CELLS

import gpurnn
from gpurnn_kernels import cpu
from gpurnn_kernels.cpu import engine
from gpurnn_kernels.cpu.codegen import amx_permission as permission
from gpurnn_kernels.cpu.codegen.target import describe, target
from gpurnn_kernels.cpu.programs import blocking, weights
from gpurnn_kernels.cpu.programs.blocking import Products
from gpurnn_kernels.cpu.threads import partition as schedule

needs_amx = pytest.mark.skipif(not target().amx, reason="this processor has no AMX, or the system does not give it")
RAGGED = [5, 0, 4, 4, 1, 2, 5, 3, 3, 0, 1, 5, 5, 2, 5, 4, 5, 3, 1]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMX makes every product that it can."""
    for name in ("AMX_WORK", "AMX_ROWS", "AMX_UNITS"):
        monkeypatch.setattr(blocking, name, 0)


def check(p: Problem) -> None:
    assert_gradients_near(p.gradients(), p.expected_gradients(), GRADIENTS["float32"] / 10)


@needs_amx
@pytest.mark.usefixtures("always")
@every_cell
@pytest.mark.parametrize("sizes", [*SIZES, (64, 9, 130, 150), (9, 5, 600, 40), (3, 140, 20, 300), (600, 1, 7, 33)], ids=str)
def test_sizes(cell: str, sizes: tuple[int, int, int, int]) -> None:
    """Strips partly filled, rows that are no whole block, more of all than is split at once."""
    check(Problem(cell, *sizes))


@needs_amx
@pytest.mark.usefixtures("always")
@every_cell
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
def test_layers(cell: str, options: dict[str, bool], lengths: list[int] | None) -> None:
    check(Problem(cell, 5, 19, 9, 21, lengths=lengths, **options))


@needs_amx
@pytest.mark.usefixtures("always")
@every_option
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
def test_options(kind: str, lengths: list[int] | None) -> None:
    check(Problem(kind, 5, 19, 9, 37, lengths=lengths))


@needs_amx
@every_cell
def test_what_is_chosen_by_itself(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large products are AMX's without being told, and more accurate than multiply-adds."""
    p = Problem(cell, 40, 16, 96, 96, seed=3)
    spec = p.layer._prepared.layers(cpu)[0].spec
    assert blocking.choose(spec, 40, 16, target()) == Products(True, True)
    assert blocking.choose(spec, 2, 16, target()) == Products(False, False)
    assert blocking.choose(spec, 80, 8, target()) == Products(True, False)
    expected, by_amx = p.expected_gradients(), p.gradients()
    with monkeypatch.context() as never:
        never.setattr(engine, "choose", lambda *_: Products(False, False))
        by_vectors = Problem(cell, 40, 16, 96, 96, seed=3).gradients()
    for name, exact in expected.items():
        off, off_without = (np.linalg.norm(found[name] - exact) for found in (by_amx, by_vectors))
        assert 0 < off < 1.1 * off_without, name
        assert off < 1e-6 * np.linalg.norm(exact), name


@needs_amx
@pytest.mark.usefixtures("always", "together")
@every_cell
@pytest.mark.parametrize("split", ["one", "rows", "units"])
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
def test_threads(cell: str, split: str, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ("forward", "both", "stacked"):
        p = Problem(cell, 5, 19, 13, 200, lengths=lengths, **LAYERS[options])
        gpurnn.set_num_threads(1)
        expected = p.gradients()
        with monkeypatch.context() as forced:
            forced.setattr(schedule, "_choose", lambda *_: (split, "forced"))
            for threads in (2, 3):
                gpurnn.set_num_threads(threads)
                for _ in range(2):
                    q = Problem(cell, 5, 19, 13, 200, lengths=lengths, **LAYERS[options])
                    assert_same_bits(q.gradients(), expected)


@needs_amx
@every_cell
def test_one_layer_with_and_without(cell: str) -> None:
    """Batches of one layer that AMX makes, makes in part and does not: each finds its own packed weights."""
    problems = [Problem(cell, T, B, 60, 100) for T, B in ((40, 20), (100, 8), (2, 20), (40, 20))]
    expected = [p.gradients() for p in problems]
    layer = problems[0].layer
    for p, wanted in zip(problems, expected, strict=True):
        _, vjp = layer.vjp(p.x, p.state)
        assert_same_bits(named(vjp(p.dy, p.dstate)), wanted)
    assert len(layer._prepared.layers(cpu)[0].directions[0]._passes) == 4


@needs_amx
@pytest.mark.usefixtures("always")
@every_cell
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(cell: str, value: float) -> None:
    """And is not lost in the sums that it is part of."""
    p = Problem(cell, 6, 20, 9, 37)
    expected = p.gradients()
    p.dy[4, 7, 3] = value
    found = p.gradients()
    rows = np.arange(20) != 7
    assert_same_bits(found["x"][:, rows], expected["x"][:, rows])
    assert_same_bits(found["x"][5:, 7], expected["x"][5:, 7])
    assert not np.isfinite(found["x"][4, 7]).any()
    for name in found:
        if name.startswith("layers"):
            assert not np.isfinite(found[name]).all(), name


@needs_amx
def test_three_parts_are_the_whole() -> None:
    """This holds for any float32 that is no denormal, and whose low part is none; rows that do not count are zeros."""
    from gpurnn_kernels.cpu.products.amx import strips
    from gpurnn_kernels.cpu.products.amx.instructions import BLOCK, PART

    @njit
    def split(zero, to, first, first_count, second, second_count):  # type: ignore[no-untyped-def]
        strips.split_pair(zero, (to, first, first_count, second, second_count))

    rng = np.random.default_rng(0)
    for exponent in (-100, -20, 0, 20, 127):
        values = (rng.uniform(1, 1.99, 32) * rng.choice([-1, 1], 32) * 2.0**exponent).astype(np.float32)
        for count in (16, 5, 0):
            block = np.full(BLOCK // 2, 0x7FC0, np.uint16)
            split(np.float32(0), block.ctypes.data, values.ctypes.data, 16, values[16:].ctypes.data, count)
            parts = block.reshape(3, PART // 64, 16, 2)[:, 0].astype(np.uint32) << 16
            pairs = parts.view(np.float32).astype(np.float64).sum(axis=0)  # exact
            np.testing.assert_array_equal(pairs[:, 0], values[:16])
            np.testing.assert_array_equal(pairs[:, 1], np.where(np.arange(16) < count, values[16:], 0))


@needs_amx
@pytest.mark.parametrize("cell", CELLS)
def test_packed_strips(cell: str) -> None:
    """Weights of the way back: their parts add up to the matrix, k by block of units, gate and lane."""
    layer = Problem(cell, 1, 1, 21, 40).layer
    direction: weights.Weights = layer._prepared.layers(cpu)[0].directions[0]
    packed = direction.backward(Products(True, True)).arrays
    gates = direction.spec.gates
    for name, parameter, order in [("w_x", "W_x", range(gates)), ("w_h", "W_h", range(2 if cell == "gru" else gates))]:
        matrix = direction.parameters[parameter]
        columns = matrix.shape[1]
        strips = -(-columns // 16)
        found = packed[name].view(np.uint16).reshape(strips, -1, 3, 16, 16, 2).astype(np.uint32) << 16
        whole = found.view(np.float32).astype(np.float64).sum(axis=2)  # strip, block, pair, column, half
        by_k = whole.transpose(1, 4, 2, 0, 3).reshape(-1, strips * 16)
        expected = np.zeros((len(by_k), strips * 16))
        at = 0
        for block in range(3):
            for gate in order:
                rows = matrix[gate * 40 + block * 16 : gate * 40 + min(40, block * 16 + 16)]
                expected[at : at + len(rows), :columns] = rows
                at += 16
        np.testing.assert_array_equal(by_k, expected)


def test_targets() -> None:
    avx512 = "+avx2,+fma,+avx512f,+avx512dq,+avx512vl"
    assert describe("x86_64", "some", f"{avx512},+amx-tile,+amx-bf16").amx
    for features in (avx512, f"{avx512},+amx-tile,-amx-bf16", "+avx2,+fma,+amx-tile,+amx-bf16"):
        assert not describe("x86_64", "some", features).amx
    assert "amx" in str(describe("x86_64", "some", f"{avx512},+amx-tile,+amx-bf16"))


def test_where_it_is_not_wanted() -> None:
    """GPURNN_AMX=0: gradients come from multiply-adds."""
    code = "import gpurnn, numpy as np; from gpurnn_kernels.cpu.codegen.target import target; "
    code += "gpurnn.LSTM(3, 4).vjp(np.zeros((2, 1, 3), np.float32))[1](None); print(target().amx)"
    assert python(code, GPURNN_AMX="0").strip() == "False"
    code = "import gpurnn, numpy as np\ntry: gpurnn.LSTM(3, 4)(np.zeros((2, 3), np.float32))\nexcept ValueError as e: print(e)"
    assert python(code, GPURNN_AMX="yes").strip() == "GPURNN_AMX: expected 0 or 1, got 'yes'"


def test_where_it_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that refuses, and another system."""

    class Refuses:
        def __init__(self, *_: object) -> None: ...

        def syscall(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(permission.ctypes, "CDLL", Refuses)
    assert not permission.granted()
    monkeypatch.undo()
    monkeypatch.setattr(permission.sys, "platform", "darwin")
    assert not permission.granted()
