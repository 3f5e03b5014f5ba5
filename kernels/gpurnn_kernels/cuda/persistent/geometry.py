"""How a layer is cut into blocks and warps: all that a persistent kernel is compiled for.

A block owns `units` units for the whole sequence. Its rows of W_h are ordered gate by gate, unit by unit, and go to groups of
`tile.warp_rows`; `splits` warps share the k of a group. The grid is (blocks, slices of the batch).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...spec import CellName
from ..intrinsics.operand import FLOAT32, Operand
from ..intrinsics.tensor_tile import TensorTile, make_tensor_tile
from ..intrinsics.tile import WARP, Tile, TileOps, Weight, make_tile


@dataclass(frozen=True)
class Geometry:
    cell: CellName
    hidden: int
    units: int  # of a block
    lanes: int  # that share the k of a row
    splits: int  # warps that share the k of a row
    held: int  # quads a lane and row in registers
    tiles: int  # of batch rows, as straight-line code
    turns: int  # times that the code runs in a step
    reverse: bool
    aligned: bool  # rows of h and of W_h lie at multiples of 16 bytes
    async_copies: bool  # compute capability 8.0 on
    fast_math: bool = False
    operand: Operand = FLOAT32

    @property
    def gates(self) -> int:
        return 4 if self.cell == "lstm" else 3

    @property
    def blocks(self) -> int:
        """That share a slice of the batch."""
        return -(-self.hidden // self.units)

    @property
    def quads(self) -> int:
        """128-bit loads with which a lane covers its share of a row of h."""
        lanes = 4 if self.operand.tensor else self.lanes
        return -(-self.hidden // (4 * self.operand.per_word * lanes * self.splits))

    @property
    def width(self) -> int:
        """Words of a row of h in shared memory."""
        if not self.operand.tensor:
            return 4 * self.lanes * self.splits * self.quads
        words = 16 * self.splits * self.quads
        return words if words % 32 else words + 16  # as TensorTile.stride wants it

    @property
    def sweeps(self) -> int:
        """Products of a step that one warp makes: reset before, z, r and n each wait for something else."""
        return 3 if self.cell == "gru_before" else 1

    @cached_property
    def tile(self) -> Tile | TensorTile:
        if self.operand.tensor:
            return TensorTile(self.operand, self.quads, self.width, self.turns * self.tiles * 8 | 1)
        rows, batch = (4, 8) if self.sweeps == 3 else (8, 4)
        pitch = self.turns * self.tiles * batch | 1  # odd: neighbouring units in different banks
        return Tile(rows, batch, self.lanes, self.quads, self.held, self.width, pitch)

    @property
    def rows(self) -> int:
        """Batch rows of a slice, at most."""
        return self.turns * self.tiles * self.tile.batch

    @property
    def groups(self) -> int:
        """Row groups of a block, so many that the number of warps is a multiple of 4."""
        needed = -(-self.gates * self.units // (self.sweeps * self.tile.warp_rows))
        while needed * self.splits % 4:
            needed += 1
        return needed

    @property
    def warps(self) -> int:
        return self.groups * self.splits

    @property
    def threads(self) -> int:
        return WARP * self.warps

    @cached_property
    def layout(self) -> "Layout":
        weights = self.sweeps * self.warps * self.tile.shared_words
        sizes = {
            "weights": weights,
            "h": self.rows * self.width,
            "reset": self.rows * self.width if self.sweeps == 3 else 0,
            "sums": self.sweeps * self.splits * self.split_words,
            "projected": self.rows * self.gates * self.units,
            "cells": self.rows * self.units,
            "biases": (self.gates + 1) * self.units,
            "lengths": self.rows,
        }
        places, at = {}, 0
        for name, size in sizes.items():
            places[name] = at
            at += size
        return Layout(**places, end=at)

    @property
    def shared_bytes(self) -> int:
        return 4 * self.layout.end

    @property
    def registers(self) -> int:
        """Words of weights that a thread holds."""
        return self.sweeps * self.tile.registers

    @property
    def split_words(self) -> int:
        """Words of the sums of one share of k."""
        return self.groups * self.tile.warp_rows * self.tile.pitch

    def tile_ops(self, weight: Callable[[Any], Weight]) -> TileOps:
        if isinstance(self.tile, TensorTile):
            return make_tensor_tile(self.tile, self.tiles, weight)
        return make_tile(self.tile, self.tiles, weight)


@dataclass(frozen=True)
class Layout:
    """First words of the parts of shared memory."""

    weights: int  # that registers do not hold: (warps, rows, quads, lanes, 4)
    h: int  # (rows, width)
    reset: int  # r * h (rows, width), reset before
    sums: int  # (sweeps, splits, rows of the block, pitch)
    projected: int  # W_x x of this step (rows, G, units)
    cells: int  # c of the LSTM (rows, units)
    biases: int  # b (G, units), b_hn (units,)
    lengths: int  # (rows,)
    end: int
