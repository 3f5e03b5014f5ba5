"""Weights in the order in which the tiles stream them.

Forward, a matrix (gates * H, K) becomes vectors of units, block of units by block, all gates of a block side by side;
`width` of them to a panel: [panel][k][vector][lane], the last panel as narrow as it is. Lanes past H
are zeros. Backward, vectors are of its K columns, and panels run over its rows; or its columns become strips of AMX tiles.

The units that are left over after whole vectors (4 of 100) would waste most of their lanes. Where that takes fewer vectors,
their gates share vectors instead: [k][gate][unit], without padding in between. The kernels spread them afterwards.
"""

from dataclasses import dataclass
from typing import Literal

from .amx.instructions import BLOCK
from .amx.strips import blocks_in, strips_in

Order = Literal["forward", "backward", "strips"]
TAIL_WIDTHS = (1, 2)  # vectors that gates may share: each width is a tile of its own to compile


def tail_vectors(gates: int, hidden_size: int, lanes: int) -> int:
    """Vectors that the gates of the left-over units share; 0 where each gate has vectors of its own."""
    needed = -(-gates * (hidden_size % lanes) // lanes)
    return needed if needed in TAIL_WIDTHS and needed < gates else 0


@dataclass(frozen=True)
class Layout:
    """The order of one packed array."""

    parameter: str  # that it is of: (all gates * H, K), or a bias, with K = 1
    gates: tuple[int, ...]  # of it, in this order
    hidden_size: int  # rows of a gate
    columns: int  # K
    lanes: int
    width: int  # vectors of a panel
    tail: int = 0  # vectors that the gates of the left-over units share
    order: Order = "forward"

    @property
    def units(self) -> int:
        """Of each gate that fill vectors of their own."""
        return self.hidden_size // self.lanes * self.lanes if self.tail else self.hidden_size

    @property
    def vectors(self) -> int:
        """Of units, all gates'."""
        return -(-self.units // self.lanes) * len(self.gates)

    @property
    def pieces(self) -> int:
        """That threads share out: blocks of strips, or vectors."""
        return blocks_in(self.vectors) if self.order == "strips" else self.vectors

    @property
    def size(self) -> int:
        """Elements of the array."""
        if self.order == "strips":
            return strips_in(self.columns) * blocks_in(self.vectors) * BLOCK // 4
        columns = -(-self.columns // self.lanes) * self.lanes if self.order == "backward" else self.columns
        return (self.vectors + self.tail) * self.lanes * columns

    @property
    def padded(self) -> bool:
        """With elements that the kernels leave as they are, and that must be zeros."""
        if self.order == "strips":
            return False
        return self.hidden_size % self.lanes > 0 or (self.order == "backward" and self.columns % self.lanes > 0)
