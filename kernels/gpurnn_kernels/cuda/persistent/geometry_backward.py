"""How the backward pass of a layer is cut into blocks and warps.

A block owns `units` units: it makes their gate gradients d (rows, K) and multiplies them with its rows of W_h (K, H),
K = gates x units. What it gets is its share of dh of ALL units: blocks exchange shares, and each sums those of its own units.
A column of W_h takes the place that a row has in the forward pass.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from ...spec import CellName
from ..intrinsics.operand import FLOAT32
from ..intrinsics.tile import WARP, Tile

SWEEPS = {  # gates whose gradients are multiplied together, in W_h's order
    "lstm": (range(0, 4),),
    "gru_after": (range(0, 3),),
    "gru_before": (range(2, 3), range(0, 2)),
}


@dataclass(frozen=True)
class BackwardGeometry:
    cell: CellName
    hidden: int
    units: int  # of a block
    lanes: int  # that share the k of a column
    held: int  # quads a lane and column in registers, of each product
    tiles: int  # of batch rows, as straight-line code
    turns: int  # times that the code runs in a step
    reverse: bool
    async_copies: bool
    fast_math: bool = False
    operand: ClassVar = FLOAT32

    @property
    def blocks(self) -> int:
        return -(-self.hidden // self.units)

    @property
    def gates(self) -> int:
        return 4 if self.cell == "lstm" else 3

    @property
    def gradients(self) -> int:
        """Gate gradients of a unit: a reset-after GRU's candidate has one for W_h and one for W_x."""
        return 3 if self.cell == "gru_before" else 4

    @property
    def sweeps(self) -> tuple[range, ...]:
        return SWEEPS[self.cell]

    @cached_property
    def products(self) -> tuple[Tile, ...]:
        return tuple(self._tile(len(gates) * self.units) for gates in self.sweeps)

    def _tile(self, k: int) -> Tile:
        quads = -(-k // (4 * self.lanes))
        return Tile(8, 4, self.lanes, quads, min(self.held, quads), 4 * self.lanes * quads, self.rows | 1)

    @property
    def rows(self) -> int:
        return self.turns * self.tiles * 4

    @property
    def registers(self) -> int:
        """Words of weights that a thread holds."""
        return sum(tile.registers for tile in self.products)

    @property
    def warps(self) -> int:
        """A multiple of 4, each with columns of its own."""
        needed = -(-self.hidden * self.lanes // (8 * WARP))
        return -(-needed // 4) * 4

    @property
    def threads(self) -> int:
        return WARP * self.warps

    @property
    def inputs(self) -> int:
        """Numbers a unit that a step reads: gates, c or q, c or h of the step before, dy."""
        return self.gates + 3

    @property
    def share(self) -> int:
        """Words that a block sends to another."""
        return self.rows * self.units

    @cached_property
    def layout(self) -> "BackwardLayout":
        sums = self.warps * self.products[0].warp_rows * self.products[0].pitch
        sizes = {
            "weights": self.warps * sum(tile.shared_words for tile in self.products),
            "operand": self.rows * sum(tile.stride for tile in self.products),
            "shares": max(sums, self.blocks * self.share),
            "inputs": self.share * self.inputs,
            "carried": self.share,
            "lengths": self.rows,
        }
        places, at = {}, 0
        for name, size in sizes.items():
            places[name] = at
            at += size
        return BackwardLayout(**places, end=at)

    @property
    def shared_bytes(self) -> int:
        return 4 * self.layout.end


@dataclass(frozen=True)
class BackwardLayout:
    """First words of the parts of shared memory."""

    weights: int  # that registers do not hold, for each product (warps, columns, quads, lanes, 4)
    operand: int  # gate gradients, for each product (rows, stride)
    shares: int  # of dh: this block's sums (H, pitch) until all are sent, then what every block sent it (blocks, rows, units)
    inputs: int  # (rows, inputs, units)
    carried: int  # dc of the LSTM, dh past the gates of a GRU (rows, units)
    lengths: int  # (rows,)
    end: int
