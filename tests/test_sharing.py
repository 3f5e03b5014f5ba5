"""How works that share rows take panels: their own first, then each other's, every panel once."""

import ctypes
from typing import Any

import numpy as np
import pytest
from numba import cfunc, types

from gpurnn_kernels.cpu.barrier import LINE
from gpurnn_kernels.cpu.job import WORK, WORK_POINTER
from gpurnn_kernels.cpu.memory import record, store_word
from gpurnn_kernels.cpu.shelf import aligned_zeros
from gpurnn_kernels.cpu.steps.common import take

COUNTS = (5, 3, 4)  # panels of each work
OWN = [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]


@cfunc(types.void(WORK_POINTER, types.int64, types.int64, types.int64))
def take_some(work, back, most, found):  # type: ignore[no-untyped-def]
    """Stores at `found` what a work takes in a step: `most` panels or, where fewer are left, those and -1."""
    work = record(work)
    panel = 0
    while most > 0 and panel >= 0:
        panel = take(work, back)
        store_word(found, panel)
        found += 8
        most -= 1


def taken(works: Any, member: int, s: int, most: int) -> list[int]:
    found = np.full(most, -2, np.int64)
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(take_some.address)
    kernel(works.ctypes.data + member * WORK.itemsize, s & 1, most, found.ctypes.data)
    return [int(panel) for panel in found if panel > -2]


@pytest.fixture
def shared() -> tuple[Any, Any]:
    """-> works with claims on each other's panels, and what holds the claims."""
    claims = aligned_zeros(len(COUNTS) * LINE // 8, np.dtype(np.int64))
    works = np.zeros(len(COUNTS), WORK)
    claims.reshape(-1, LINE // 8)[:, 1:3] = [(own[0], len(own)) for own in OWN]
    for member, (work, own) in enumerate(zip(works, OWN, strict=True)):
        work["claims"], work["members"], work["member"] = claims.ctypes.data, len(COUNTS), member
        work["panel_0"], work["panel_1"] = own[0], own[-1] + 1
    return works, claims


def in_order(member: int, s: int) -> list[int]:
    return [panel for turn in range(len(COUNTS)) for panel in OWN[(member + turn) % len(COUNTS)][:: -1 if s & 1 else 1]]


@pytest.mark.parametrize("member", range(len(COUNTS)))
def test_one_that_is_alone_takes_all(member: int, shared: tuple[Any, Any]) -> None:
    works, _ = shared
    for s in range(4):
        assert taken(works, member, s, 99) == [*in_order(member, s), -1]
        for other in set(range(len(COUNTS))) - {member}:  # they come too late
            assert taken(works, other, s, 99) == [-1]


def test_every_panel_is_taken_once(shared: tuple[Any, Any]) -> None:
    works, _ = shared
    rng = np.random.default_rng(0)
    for s in range(40):
        left = set(range(len(COUNTS)))
        found: list[int] = []
        while left:
            member = int(rng.choice(sorted(left)))
            some = taken(works, member, s, int(rng.integers(1, 4)))
            if some[-1] < 0:
                left.remove(member)
            found += [panel for panel in some if panel >= 0]
        assert sorted(found) == list(range(sum(COUNTS)))


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_one_that_shares_with_nobody(at_once: int) -> None:
    """Groups of panels from both ends in turn, the same ones."""
    works = np.zeros(1, WORK)
    starts = list(range(2, 9, at_once))
    works["panel_0"], works["panel_1"], works["at_once"], works["groups"] = 2, 9, at_once, len(starts)
    for s in range(4):
        assert taken(works, 0, s, 99) == [*starts[:: -1 if s & 1 else 1], -1]
