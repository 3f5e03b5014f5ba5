"""How the forward pass of a layer is cut into blocks and warps; `geometry.py` has the figure.

A block's rows of W_h are ordered gate by gate, unit by unit, and go to groups of `tile.warp_rows`; `splits` warps share the
k of a group.
"""

from dataclasses import dataclass

from ...cached_property import cached_property
from ..intrinsics.operand import FLOAT32, Operand
from ..intrinsics.tensor_tile import TensorTile, make_tensor_tile
from ..intrinsics.tile import Tile, TileOps, make_tile
from ..intrinsics.tile_weights import gate_rows
from .geometry import Geometry, laid_out


@dataclass(frozen=True)
class ForwardGeometry(Geometry):
    splits: int  # warps that share the k of a row
    aligned: bool  # rows of h and of W_h lie at multiples of 16 bytes
    fast_math: bool = False
    operand: Operand = FLOAT32

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
    def num_products(self) -> int:
        """Products of a step that one warp makes: reset before, z, r and n each wait for something else."""
        return self.num_gates if self.resets_before else 1

    @cached_property
    def tile(self) -> Tile | TensorTile:
        if self.operand.tensor:
            return TensorTile(self.operand, self.quads, self.width, self.turns * self.tiles * 8 | 1)
        rows, batch = (4, 8) if self.num_products == 3 else (8, 4)
        pitch = self.turns * self.tiles * batch | 1  # odd: neighbouring units in different banks
        return Tile(rows, batch, self.lanes, self.quads, self.held, self.width, pitch)

    @property
    def rows(self) -> int:
        """Batch rows of a slice, at most."""
        return self.turns * self.tiles * self.tile.batch

    @property
    def groups(self) -> int:
        """Row groups of a block, so many that the number of warps is a multiple of 4."""
        needed = -(-self.num_gates * self.units // (self.num_products * self.tile.warp_rows))
        while needed * self.splits % 4:
            needed += 1
        return needed

    @property
    def warps(self) -> int:
        return self.groups * self.splits

    @property
    def registers(self) -> int:
        """Words of weights that a thread holds."""
        return self.num_products * self.tile.registers

    @property
    def split_words(self) -> int:
        """Words of the sums of one share of k."""
        return self.groups * self.tile.warp_rows * self.tile.pitch

    @cached_property
    def layout(self) -> "ForwardLayout":
        sizes = {
            "weights": self.num_products * self.warps * self.tile.shared_words,
            "h": self.rows * self.width,
            "reset": self.rows * self.width if self.num_products == 3 else 0,
            "sums": self.num_products * self.splits * self.split_words,
            "projected": self.rows * self.num_gates * self.units,
            "cells": self.rows * self.units,
            "biases": (self.num_gates + 1) * self.units,
            "lengths": self.rows,
        }
        return ForwardLayout(**laid_out(sizes))

    def tile_ops(self, gates: range) -> TileOps:
        """Makes the product of a warp with the rows of those gates."""
        weight = gate_rows(self.tile, self.operand, self.hidden, self.units, gates, self.splits, self.aligned)
        if isinstance(self.tile, TensorTile):
            return make_tensor_tile(self.tile, self.tiles, weight)
        return make_tile(self.tile, self.tiles, weight)


@dataclass(frozen=True)
class ForwardLayout:
    """First words of the parts of shared memory."""

    weights: int  # that registers do not hold: (products, warps, rows, quads, lanes, 4)
    h: int  # (rows, width)
    reset: int  # r * h (rows, width), reset before
    sums: int  # (products, splits, rows of the block, pitch)
    projected: int  # W_x x of this step (rows, G, units)
    cells: int  # c of the LSTM (rows, units)
    biases: int  # b (G, units), b_hn (units,)
    lengths: int  # (rows,)
    end: int
