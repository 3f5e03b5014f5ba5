"""How the backward pass of a layer is cut into blocks and warps; `geometry.py` has the figure.

A block makes the gate gradients d (rows, K) of its units and multiplies them with its rows of W_h (K, H), K = gates x units.
What it gets is its share of dh of ALL units: blocks exchange shares, and each sums those of its own units. A column of W_h
takes the place that a row has in the forward pass.
"""

from dataclasses import dataclass
from typing import ClassVar

from ...cached_property import cached_property
from ..intrinsics.operand import FLOAT32
from ..intrinsics.tile import WARP, Tile
from .geometry import Geometry, laid_out


@dataclass(frozen=True)
class BackwardGeometry(Geometry):
    fast_math: bool = False
    operand: ClassVar = FLOAT32

    @property
    def num_gradients(self) -> int:
        """Gate gradients of a unit: a reset-after GRU's candidate has one for W_h and one for W_x."""
        return self.num_gates + len(self.shape.biases)

    @property
    def product_gates(self) -> tuple[range, ...]:
        """Gates whose gradients are multiplied together, in W_h's order."""
        return (range(2, 3), range(0, 2)) if self.resets_before else (range(self.num_gates),)

    @cached_property
    def products(self) -> tuple[Tile, ...]:
        return tuple(self._tile(len(gates) * self.units) for gates in self.product_gates)

    def _tile(self, k: int) -> Tile:
        quads = -(-k // (4 * self.lanes))
        return Tile(8, 4, self.lanes, quads, min(self.held, quads), 4 * self.lanes * quads, self.rows | 1)

    @property
    def rows(self) -> int:
        """Batch rows of a slice, at most."""
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
    def num_inputs(self) -> int:
        """Numbers a unit that a step reads: gates, c or q, c or h of the step before, dy."""
        return self.num_gates + 3

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
            "inputs": self.share * self.num_inputs,
            "carried": self.share,
            "lengths": self.rows,
        }
        return BackwardLayout(**laid_out(sizes))


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
