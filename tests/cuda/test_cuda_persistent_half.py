"""Persistent kernels of float16 layers: W_h, h and r * h in float16 on tensor cores, sums, gates and c in float32."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cuda_compiler import REASON

if REASON is not None:
    pytest.skip(f"no CUDA compiler: {REASON}", allow_module_level=True)

from helpers import Backend, Launches, Problem, assert_gradients_near, assert_near, leaves
from persistent_problem import PersistentProblem, toy
from test_cuda_persistent import RAGGED
from test_cuda_persistent_bugs import BUGS, sow

from gpurnn_kernels.cuda import persistent
from gpurnn_kernels.cuda.persistent.geometry_forward import ForwardGeometry
from gpurnn_kernels.spec import Spec
from ptx_emulator.counters import Counters

ROUNDING = 2.0**-11  # of h, at every step
OUTPUTS, GRADIENTS = 2 * ROUNDING, 2e-3
WRONG = 0.05


def half(cell: str, H: int, T: int = 5, B: int = 9, **options: Any) -> PersistentProblem:
    return PersistentProblem(cell, H, T, B, dtype="float16", **options)


def mma(device: Any) -> list[str]:
    return [name for name in device.last.counters.opcodes if name.startswith("mma")]


@pytest.mark.parametrize(
    ("problem", "card", "several"),
    [
        (half("lstm", 1, 1, 1), "A100", False),
        (half("lstm", 100, lengths=RAGGED[:9]), "A100", True),
        (half("gru_after", 96, B=3, reverse=True, lengths=[2, 0, 5]), "A100", True),
        (half("gru_after", 33, lengths=RAGGED[:9]), "H100 SXM", False),
        (half("gru_before", 31, 1, 3, reverse=True), "H100 SXM", False),
        (half("gru_before", 200, 3, lengths=[3, 1, 0, 2, 3, 3, 1, 9, 2]), "H100 SXM", True),
        (half("lstm", 31, B=3, lengths=[1, 0, 5], reverse=True), "T4", False),
    ],
    ids=lambda value: f"{value.spec.cell}-{value.H}" if isinstance(value, PersistentProblem) else str(value),
)
def test_outputs(problem: PersistentProblem, card: str, several: bool) -> None:
    """In one block, or in several that exchange h."""
    device = toy(card, multiprocessors=16)
    plan = problem.plan(device)
    assert (plan.geometry.blocks > 1) == several
    y, final, _ = problem.forward(device, plan, keep=True)
    assert y.dtype == np.float16
    assert problem.error(y, final) < OUTPUTS
    assert mma(device) == [f"mma.sync.aligned.m16n8k{8 if card == 'T4' else 16}.row.col.f32.f16.f16.f32"]


@pytest.mark.parametrize(
    ("cell", "H", "options", "lengths"),
    [
        ("lstm", 31, {"bidirectional": True}, [2, 0, 5]),
        ("gru", 31, {"reverse": True}, [5, 1, 4]),
        ("gru_after", 33, {}, None),
    ],
)
def test_training(
    cell: str,
    H: int,
    options: dict[str, Any],
    lengths: Any,
    device_backend: Backend,
    launches: Launches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backward pass goes by steps, over what this forward pass saves; one by steps saves the same."""
    p = Problem(cell, 5, 3, 4, H, dtype="float16", lengths=lengths, **options)
    assert_gradients_near(p.gradients(device_backend), p.expected_gradients(), GRADIENTS)
    kernels = " ".join(launches)
    assert "persistent" in kernels
    assert not re.search("persistent_[a-z_]*backward", kernels)
    found = p.run(device_backend)
    assert_near(found, p.expected(), OUTPUTS)
    monkeypatch.setattr(persistent, "fit_forward", lambda *_: persistent.Refusal("the test asks for steps"))
    by_steps = Problem(cell, 5, 3, 4, H, dtype="float16", lengths=lengths, **options).run(device_backend)
    for one, other in zip(leaves(found), leaves(by_steps), strict=True):
        assert np.max(np.abs(one.astype(float) - other)) <= 2 * ROUNDING


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    many, one = half("lstm", 100, 3), half("lstm", 100, 3)
    one.keep_row(4)
    device = toy("A100", multiprocessors=16)
    device.noise = False
    (y, final, _), (y_one, final_one, _) = many.forward(device), one.forward(device)
    assert np.array_equal(np.asarray(y)[:, 4:5], y_one)
    assert all(np.array_equal(np.asarray(a)[4:5], b) for a, b in zip(final, final_one, strict=True))


@dataclass(frozen=True)
class Narrow(ForwardGeometry):
    """Rows of h end where k does."""

    @property
    def width(self) -> int:
        return 16 * self.splits * self.quads


def test_no_bank_conflicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 bits for each of 32 lanes take 4 turns at the least, from rows of h that 8 lanes of two rows read together."""
    turns: list[float] = []
    memory = Counters.memory

    def counted(self: Counters, group: Any, space: str, kind: str, offsets: Any, size: int) -> None:
        before = self.cycles[kind]
        memory(self, group, space, kind, offsets, size)
        if (space, kind, size) == ("shared", "load", 16):
            turns.append((self.cycles[kind] - before) / len(np.unique(group.warp)))

    monkeypatch.setattr(Counters, "memory", counted)
    problem, device = half("lstm", 64, 2, 8), toy("A100", multiprocessors=16)
    device.detailed = True
    plan = problem.plan(device)
    problem.forward(device, plan)
    assert set(turns) == {4}
    turns.clear()
    problem.forward(device, persistent.ForwardPlan(Narrow(**vars_of(plan.geometry)), plan.slices, plan.slice_rows))
    assert max(turns) > 4


def vars_of(g: ForwardGeometry) -> dict[str, Any]:
    return {name: getattr(g, name) for name in g.__dataclass_fields__}


def swapped(ptx: str) -> str:
    """Rows 0 .. 7 and 8 .. 15 of the weights change places."""
    return re.sub(r"(mma\.sync[^{]*\{[^}]*\},\s*\{)(%r\d+), (%r\d+),", r"\1\3, \2,", ptx)


def test_bugs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A barrier of the grid, one of the block, a fragment."""
    problem, device = half("lstm", 100, 3), toy("A100", multiprocessors=16)
    device.strict = False
    y, final, _ = problem.forward(device)
    assert not device.warnings
    assert problem.error(y, final) < OUTPUTS
    for edit in (BUGS["does not wait"], lambda ptx: re.sub(r"bar(rier)?\.sync\s+0;", "", ptx, count=2)):
        with monkeypatch.context() as patch:
            sow(patch, edit)
            device.warnings.clear()
            problem.forward(device)
            assert device.warnings
    sow(monkeypatch, swapped)
    y, final, _ = problem.forward(device)
    assert problem.error(y, final) > WRONG


def test_backward_says_why_it_goes_by_steps() -> None:
    refused = persistent.fit_backward(Spec("lstm", 8, 64, np.dtype(np.float16)), 4, toy())
    assert isinstance(refused, persistent.Refusal)
    assert "backward" in refused.reason
    assert "float16" in refused.reason
