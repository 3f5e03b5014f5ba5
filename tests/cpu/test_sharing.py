"""How works that share rows next_panel panels: their own first, then each other's, every panel once."""

import ctypes
from typing import Any

import numpy as np
import pytest
from numba import cfunc, types

from gpurnn_kernels.cpu.cells.step import next_panel
from gpurnn_kernels.cpu.codegen.aligned import aligned_zeros
from gpurnn_kernels.cpu.codegen.descriptors import SHARE, SHARE_POINTER
from gpurnn_kernels.cpu.codegen.intrinsics import record, store_word
from gpurnn_kernels.cpu.threads import layout
from gpurnn_kernels.cpu.threads.commands import help_once

PIECES = layout.PIECES // layout.BLOCK
COUNTS = (5, 3, 4)  # panels of each work
OWN = [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]


@cfunc(types.void(SHARE_POINTER, types.int64, types.int64, types.int64))
def take_some(share, back, most, found):  # type: ignore[no-untyped-def]
    """Stores at `found` what a share takes in a step: `most` panels or, where fewer are left, those and -1."""
    share = record(share)
    panel = 0
    while most > 0 and panel >= 0:
        panel = next_panel(share, back)
        store_word(found, panel)
        found += 8
        most -= 1


def taken(shares: Any, rank: int, s: int, most: int) -> list[int]:
    found = np.full(most, -2, np.int64)
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(take_some.address)
    kernel(shares.ctypes.data + rank * SHARE.itemsize, s & 1, most, found.ctypes.data)
    return [int(panel) for panel in found if panel > -2]


@pytest.fixture
def shared() -> tuple[Any, Any]:
    """-> shares that claim panels from each other, and the team's memory."""
    blocks = aligned_zeros(layout.BYTES // 8, np.dtype(np.int64)).reshape(-1, layout.BLOCK // 8)
    shares = np.zeros(len(COUNTS), SHARE)
    for rank, share in enumerate(shares):
        share["claims"], share["team_size"], share["rank"] = blocks.ctypes.data, len(COUNTS), rank
        share["panel_end"], share["at_once"] = sum(COUNTS), 1
    return shares, blocks


def publish(blocks: Any, phase: int) -> None:
    """Stands in for `phases.publish`."""
    for rank, own in enumerate(OWN):
        blocks[PIECES + rank, layout.FIRST // 8] = own[0]
        blocks[PIECES + rank, 0] = phase << 28 | len(own) << 14


@cfunc(types.int64(types.int64, types.int64))
def helped(team, rank):  # type: ignore[no-untyped-def]
    """How many pieces a worker claims and runs."""
    _, done = help_once(team, rank, 0)
    return done


def test_a_worker_without_a_share_in_a_phase_claims_nothing(shared: tuple[Any, Any]) -> None:
    """It may have looked at the team's size when the last command still had a share for it."""
    _, blocks = shared
    publish(blocks, 1)
    blocks[PIECES : PIECES + 4, layout.RANKS // 8] = 2
    blocks[layout.SIZE // layout.BLOCK, layout.SIZE % layout.BLOCK // 8] = 4
    before = blocks.copy()
    help_in_python = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(helped.address)
    assert help_in_python(blocks.ctypes.data, 3) == 0
    assert (blocks == before).all()


def in_order(rank: int, s: int) -> list[int]:
    return [panel for turn in range(len(COUNTS)) for panel in OWN[(rank + turn) % len(COUNTS)][:: -1 if s & 1 else 1]]


@pytest.mark.parametrize("rank", range(len(COUNTS)))
def test_one_that_is_alone_takes_all(rank: int, shared: tuple[Any, Any]) -> None:
    shares, blocks = shared
    for s in range(4):
        publish(blocks, s)
        assert taken(shares, rank, s, 99) == [*in_order(rank, s), -1]
        for other in set(range(len(COUNTS))) - {rank}:  # they come too late
            assert taken(shares, other, s, 99) == [-1]


def test_every_panel_is_taken_once(shared: tuple[Any, Any]) -> None:
    shares, blocks = shared
    rng = np.random.default_rng(0)
    for s in range(40):
        publish(blocks, s)
        left = set(range(len(COUNTS)))
        found: list[int] = []
        while left:
            rank = int(rng.choice(sorted(left)))
            some = taken(shares, rank, s, int(rng.integers(1, 4)))
            if some[-1] < 0:
                left.remove(rank)
            found += [panel for panel in some if panel >= 0]
        assert sorted(found) == list(range(sum(COUNTS)))


def test_a_panel_that_was_claimed_before_comes_first(shared: tuple[Any, Any]) -> None:
    shares, blocks = shared
    publish(blocks, 1)
    blocks[PIECES + 1, 0] += 1  # what a worker does that finds a phase, here a panel meant for the second work
    shares[2]["given"] = (1 << 14 | 0) + 1
    assert taken(shares, 2, 0, 2) == [OWN[1][0], OWN[2][0]]
    assert shares[2]["pieces"] == 2


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_one_that_shares_with_nobody(at_once: int) -> None:
    """Groups of panels from both ends in turn, the same ones."""
    shares = np.zeros(1, SHARE)
    starts = list(range(2, 9, at_once))
    shares["panel_begin"], shares["panel_end"], shares["at_once"], shares["groups"] = 2, 9, at_once, len(starts)
    for s in range(4):
        assert taken(shares, 0, s, 99) == [*starts[:: -1 if s & 1 else 1], -1]
