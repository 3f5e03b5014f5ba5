"""Persistent kernels against the reference, on the emulator, noise on: a warning of the interpreter fails the launch."""

from typing import Any

import numpy as np
import pytest
from cuda_compiler import REASON

if REASON is not None:
    pytest.skip(f"no CUDA compiler: {REASON}", allow_module_level=True)

from helpers import BACKENDS
from persistent_problem import PersistentProblem, host, toy

from gpurnn_kernels.cuda.persistent import BackwardPlan, ForwardPlan
from gpurnn_kernels.cuda.persistent.geometry_backward import BackwardGeometry
from gpurnn_kernels.cuda.persistent.geometry_forward import ForwardGeometry
from ptx_emulator.device import EmulatedDevice

CELLS = ("lstm", "gru_before", "gru_after")
OUTPUTS, GRADIENTS = 1e-6, 1e-6  # absolute; relative to the largest
RAGGED = [5, 1, 0, 2, 3, 4, 5, 9, -1, 1, 2]


def card(name: str) -> Any:
    """An emulated card, one of few multiprocessors, or this machine's GPU."""
    if name != "gpu":
        return toy(multiprocessors=16) if name == "few" else toy(name)
    if why := BACKENDS["cuda"].missing():
        pytest.skip(f"cuda: {why}")
    return BACKENDS["cuda"].device


on_a_gpu = pytest.param("gpu", marks=pytest.mark.gpu)
few_or_a_gpu = pytest.mark.parametrize("name", ["few", on_a_gpu])


def cut(cell: str, hidden: int, units: int, **changes: Any) -> ForwardGeometry:
    """Blocks of so many units."""
    plain = {"lanes": 16, "splits": 1, "held": 1, "tiles": 1, "turns": 1, "reverse": False, "aligned": hidden % 4 == 0}
    return ForwardGeometry(cell, hidden, units, **{**plain, "async_copies": True, **changes})  # type: ignore[arg-type]


def run(problem: PersistentProblem, device: Any, plan: ForwardPlan | None = None, **options: Any) -> None:
    y, final, _ = problem.forward(device, plan, **options)
    assert problem.error(y, final) < OUTPUTS
    if isinstance(device, EmulatedDevice):
        assert dict(device.launches) == {f"persistent_{problem.spec.cell}_forward": 1}


@pytest.mark.parametrize(("cell", "H", "T", "B"), [("lstm", 4, 1, 1), *((cell, 1, 5, 3) for cell in CELLS)])
def test_one_block(cell: str, H: int, T: int, B: int) -> None:
    problem, device = PersistentProblem(cell, H, T, B), toy()
    assert problem.plan(device).blocks == 1
    run(problem, device)


@pytest.mark.parametrize("cell", CELLS)
def test_one_block_for_a_few_rows(cell: str) -> None:
    problem, device = PersistentProblem(cell, 31, B=11, lengths=RAGGED, reverse=True), toy()
    assert problem.plan(device).geometry.blocks == 1
    assert problem.plan(device).slices > 1
    run(problem, device)


@pytest.mark.parametrize("cell", CELLS)
def test_h_not_a_multiple_of_4(cell: str) -> None:
    problem = PersistentProblem(cell, 33, B=3, lengths=[3, 0, 5], reverse=True)
    run(problem, toy(), ForwardPlan(cut(cell, 33, 10, reverse=True), 1, 3))


@pytest.mark.parametrize("cell", CELLS)
def test_slices_of_the_batch_and_a_column_offset(cell: str) -> None:
    """Blocks of one slice never meet those of another."""
    problem = PersistentProblem(cell, 48, B=11, lengths=RAGGED)
    plan = ForwardPlan(cut(cell, 48, 12, tiles=2), 3, 4)
    run(problem, toy(), plan, directions=2)


def test_unaligned_y() -> None:
    problem, device = PersistentProblem("gru_after", 48, T=3), toy()
    y = device.zeros((3, 3, 49), np.float32)[:, :, 1:]
    _, final, _ = problem.forward(device, ForwardPlan(cut("gru_after", 48, 12, tiles=2), 1, 3), y=y)
    assert problem.error(y, final) < OUTPUTS


@pytest.mark.parametrize("cell", ["lstm", "gru_before"])
def test_k_split_over_warps_and_weights_in_shared_memory(cell: str) -> None:
    problem = PersistentProblem(cell, 160, T=2, B=9)
    geometry = cut(cell, 160, 20, lanes=8, splits=2, turns=3)
    assert geometry.quads == 3
    run(problem, toy(), ForwardPlan(geometry, 1, 9))


def test_without_asynchronous_copies() -> None:
    """Compute capability 7.5 has none."""
    run(PersistentProblem("lstm", 48, T=3), toy("T4"), ForwardPlan(cut("lstm", 48, 12, async_copies=False), 1, 3))


def test_fast_math_errs_as_the_hardware_does() -> None:
    problem, device = PersistentProblem("lstm", 4, fast_math=True), toy()
    y, final, _ = problem.forward(device)
    assert 1e-6 < problem.error(y, final) < 5e-3


@few_or_a_gpu
@pytest.mark.parametrize(("cell", "H"), [("lstm", 160), ("gru_after", 100), ("gru_before", 101)])
def test_tensor_cores(cell: str, H: int, name: str) -> None:
    """Only where asked for: W_h and h are rounded to 11 bits."""
    problem, device = PersistentProblem(cell, H, T=3, B=11, lengths=RAGGED, precision="tf32"), card(name)
    y, final, _ = problem.forward(device)
    assert 1e-5 < problem.error(y, final) < 1e-3
    if name == "few":
        assert any(name.startswith("mma.sync") for name in device.last.counters.opcodes)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("lstm", "H100 SXM"),
        ("gru_before", "few"),
        ("gru_after", "few"),
        *(pytest.param(cell, "gpu", marks=pytest.mark.gpu) for cell in CELLS),
    ],
)
def test_planned(cell: str, name: str) -> None:
    problem = PersistentProblem(cell, 160, T=3, B=11, lengths=RAGGED)
    run(problem, card(name))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("H", [31, 100])
@few_or_a_gpu
def test_gradients(cell: str, H: int, name: str) -> None:
    B = 11 if H == 31 else 3
    problem = PersistentProblem(cell, H, B=B, lengths=RAGGED[:B], reverse=H == 31)
    device = card(name)
    d_gates, d_initial = problem.backward(device, directions=2)
    assert problem.gradient_error(d_gates, d_initial) < GRADIENTS
    if name == "few":
        assert device.launches[f"persistent_{cell}_backward"] == 1
    past = np.arange(problem.T)[:, None] >= problem.valid
    assert not host(d_gates)[past].any()


@pytest.mark.parametrize(("cell", "held", "reverse"), [("lstm", 4, False), ("gru_after", 3, True), ("gru_before", 1, False)])
def test_gradients_with_weights_in_shared_memory(cell: Any, held: int, reverse: bool) -> None:
    problem = PersistentProblem(cell, 72, T=3, B=3, lengths=[2, 0, 3] if reverse else None, reverse=reverse)
    geometry = BackwardGeometry(cell, 72, 24, 4, held, tiles=1, turns=1, reverse=reverse, async_copies=True)
    assert all(0 < tile.held < tile.quads for tile in geometry.products)
    d_gates, d_initial = problem.backward(toy(), BackwardPlan(geometry, 1, 3))
    assert problem.gradient_error(d_gates, d_initial) < GRADIENTS


def test_gradients_without_dy_of_many_tiles() -> None:
    problem = PersistentProblem("lstm", 31, T=2, B=6)
    problem.dy[:] = 0
    device = toy("H100 SXM", multiprocessors=1)
    plan = problem.plan_backward(device)
    assert plan.geometry.tiles > 1
    d_gates, d_initial = problem.backward(device, without_dy=True)
    assert problem.gradient_error(d_gates, d_initial) < GRADIENTS


@pytest.mark.parametrize("cell", CELLS)
def test_no_steps(cell: str) -> None:
    """The state passes through, and its gradient."""
    problem = PersistentProblem(cell, 31, T=0, B=11, lengths=[0] * 11, reverse=True)
    d_gates, d_initial = problem.backward(toy(multiprocessors=16))
    assert d_gates.size == 0
    assert all(np.array_equal(a, b) for a, b in zip(d_initial, problem.dstate, strict=True))
    y, final, _ = problem.forward(toy())
    assert problem.error(y, final) == 0


def test_gate_gradients_of_the_candidate() -> None:
    """Reset after: dq is what W_hn gets, r times what W_xn gets."""
    problem, device = PersistentProblem("gru_after", 31, B=11, lengths=RAGGED, reverse=True), toy(multiprocessors=16)
    _, _, saved = problem.forward(device, keep=True)
    d_gates, _ = problem.backward(device)
    valid = np.arange(problem.T)[:, None] < problem.valid
    r = np.asarray(saved.gates)[valid][:, 31:62]
    _, _, dq, dn = np.split(np.asarray(d_gates)[valid], 4, axis=1)
    np.testing.assert_allclose(dq, r * dn, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_saved_gates_may_overwrite_the_projection(cell: str) -> None:
    problem, device = PersistentProblem(cell, 48, T=3), toy()
    plan = ForwardPlan(cut(cell, 48, 12, tiles=2), 1, 3)
    _, _, apart = problem.forward(device, plan, keep=True)
    _, _, in_place = problem.forward(device, plan, keep=True, in_place=True)
    assert np.array_equal(apart.gates, in_place.gates)
    assert np.array_equal(apart.extra, in_place.extra)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    """Bit for bit, on one device."""
    cell = "lstm"
    many = PersistentProblem(cell, 100, T=3, B=9)
    one = PersistentProblem(cell, 100, T=3, B=9)
    one.keep_row(4)
    device = toy(multiprocessors=16)
    device.noise = False
    (y, final, _), (y_one, final_one, _) = many.forward(device), one.forward(device)
    assert np.array_equal(np.asarray(y)[:, 4:5], y_one)
    assert all(np.array_equal(np.asarray(a)[4:5], b) for a, b in zip(final, final_one, strict=True))


def test_weights_are_read_once() -> None:
    """Beside them, of all that stands in global memory, the kernel reads what each step is about."""
    T, B, H = 3, 4, 128
    problem, device = PersistentProblem("lstm", H, T, B), toy()
    plan = problem.plan(device)
    problem.forward(device, plan)
    weights, projection, state, biases = 4 * H * H, T * B * 4 * H, 2 * B * H, 4 * H
    exchanged = (T - 1) * B * H * plan.geometry.blocks + B * H * plan.geometry.blocks
    read = device.bytes["persistent_lstm_forward", "load"]
    waiting = device.last.counters.opcodes["ld.acquire.gpu.global.u32"] if device.last else 0
    assert plan.geometry.blocks > 1
    assert plan.slices == 1
    assert abs(read / 4 - (weights + projection + state + biases + exchanged) - waiting) <= 0.01 * weights
