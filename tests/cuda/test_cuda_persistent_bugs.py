"""Bugs sown into the persistent kernels, each found by the interpreter: so the checks of the other tests are known to bite."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
from cuda_compiler import REASON

if REASON is not None:
    pytest.skip(f"no CUDA compiler: {REASON}", allow_module_level=True)

from persistent_problem import PersistentProblem, toy
from test_cuda_persistent import CELLS, cut

import ptx_emulator.device
from gpurnn_kernels.cuda.persistent import ForwardPlan
from gpurnn_kernels.cuda.persistent.geometry_forward import ForwardGeometry, ForwardLayout
from gpurnn_kernels.cuda.persistent.kernels import kernel_of
from ptx_emulator.compile import compiled
from ptx_emulator.errors import PTXError
from ptx_emulator.program import Program

Edit = Callable[[str], str]


def sow(monkeypatch: pytest.MonkeyPatch, edit: Edit, where: str = "forward") -> None:
    """Kernels of that name that run from here on are edited after compilation."""

    def program(kernel: Any, cc: Any) -> Program:
        before = compiled(kernel, cc).ptx
        after = edit(before) if where in kernel.name else before
        assert after != before or where not in kernel.name, "nothing was sown"
        return Program(after)

    monkeypatch.setattr(ptx_emulator.device, "program", program)


def found(cell: str, geometry: ForwardGeometry | None = None, *, backward: bool = False) -> list[str]:
    """The interpreter's warnings; one text if the launch broke off."""
    device = toy(multiprocessors=8)
    device.strict = False
    problem = PersistentProblem(cell, 100 if backward else 48, T=3, B=3 if backward else 11)
    try:
        if backward:
            problem.backward(device)
        else:
            problem.forward(device, ForwardPlan(geometry or blocks(cell), 3, 4))
    except PTXError as error:
        return [str(error)]
    return list(device.warnings)


def blocks(cell: str) -> ForwardGeometry:
    return cut(cell, 48, 12, tiles=2)


BUGS: dict[str, Edit] = {
    "arrives without release": lambda ptx: ptx.replace("red.release", "red.relaxed"),
    "waits without acquire": lambda ptx: ptx.replace("ld.acquire", "ld.relaxed"),
    "does not wait": lambda ptx: re.sub(
        r"ld\.acquire\.gpu\.global\.u32\s+(%r\d+), \[[^]]+\];", r"mov.u32 \1, 2147483647;", ptx
    ),
    "copies not awaited": lambda ptx: ptx.replace("cp.async.wait_all;", ""),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bug", BUGS)
def test_of_order(cell: str, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not found(cell)
    sow(monkeypatch, BUGS[bug])
    assert found(cell)


@pytest.mark.parametrize("bug", BUGS)
def test_of_order_in_the_backward_pass(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not found("lstm", backward=True)
    sow(monkeypatch, BUGS[bug], "backward")
    assert found("lstm", backward=True)


@pytest.mark.parametrize("cell", CELLS)
def test_each_barrier_of_a_block(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ptx = compiled(kernel_of(blocks(cell)), toy().limits.compute_capability).ptx
    barriers = [match.span() for match in re.finditer(r"bar(rier)?\.sync\s+0;", ptx)]
    assert len(barriers) >= 5
    for start, end in barriers:
        with monkeypatch.context() as patch:
            sow(patch, lambda whole, start=start, end=end: whole[:start] + whole[end:])
            assert found(cell), f"line {ptx[:start].count(chr(10))}"


@dataclass(frozen=True)
class Overlapping(ForwardGeometry):
    """Two parts of shared memory share a word."""

    @cached_property
    def layout(self) -> ForwardLayout:
        return replace(super().layout, lengths=super().layout.lengths - 1)


def test_parts_that_overlap() -> None:
    assert any("RACE" in text or "race" in text for text in found("lstm", Overlapping(**vars(blocks("lstm")))))


def test_one_unit_too_many() -> None:
    (text,) = found("lstm", replace(blocks("lstm"), hidden=49, aligned=False))
    assert "bounds" in text.lower()
