"""Layouts: the orders in which products read packed weights.

Forward, a matrix (gates * H, K) becomes vectors of units, block of units by block, all gates of a block side by side. A panel
has `width` vectors, the last one the remaining ones: [panel][k][vector][lane]. Lanes past H are zeros. Backward, a vector
holds columns, and products sum over the rows: [panel][row][vector][lane]; or the columns become strips of AMX tiles.

The tail, the units that remain after whole vectors (4 of 100), would waste most of its lanes. Where that takes fewer vectors,
the tail's gates share vectors instead: [k][gate][unit], without padding in between. The kernels spread them afterwards.
"""

from dataclasses import dataclass
from typing import Literal

from .amx.instructions import BLOCK
from .amx.strips import blocks_in, strips_in

Order = Literal["forward", "backward", "strips"]
TAIL_WIDTHS = (1, 2)  # vectors that gates may share: each width is a tile of its own to compile


def tail_vectors(gates: int, hidden_size: int, lanes: int) -> int:
    """Gives the vectors that the gates of the tail's units share; 0 where each gate has vectors of its own."""
    needed = -(-gates * (hidden_size % lanes) // lanes)
    return needed if needed in TAIL_WIDTHS and needed < gates else 0


@dataclass(frozen=True)
class Layout:
    """The order of one packed array."""

    parameter: str  # the parameter that is packed: (all gates * H, K), or a bias, with K = 1
    gates: tuple[int, ...]  # its gates, in packed order
    hidden_size: int  # rows of a gate
    columns: int  # K
    lanes: int
    width: int  # vectors of a panel
    tail: int = 0  # vectors that the gates of the left-over units share
    order: Order = "forward"

    @property
    def units(self) -> int:
        """The units of each gate that stand in vectors of the gate's own."""
        return self.hidden_size // self.lanes * self.lanes if self.tail else self.hidden_size

    @property
    def vectors(self) -> int:
        """The number of vectors of units, of all gates."""
        return -(-self.units // self.lanes) * len(self.gates)

    @property
    def pieces(self) -> int:
        """The number of pieces that threads share out: blocks of strips, or vectors."""
        return blocks_in(self.vectors) if self.order == "strips" else self.vectors

    @property
    def size(self) -> int:
        """The number of elements of the array."""
        if self.order == "strips":
            return strips_in(self.columns) * blocks_in(self.vectors) * BLOCK // 4
        columns = -(-self.columns // self.lanes) * self.lanes if self.order == "backward" else self.columns
        return (self.vectors + self.tail) * self.lanes * columns

    @property
    def padded(self) -> bool:
        """Tells whether there are elements that the kernels leave as they are, and that must be zeros."""
        if self.order == "strips":
            return False
        return self.hidden_size % self.lanes > 0 or (self.order == "backward" and self.columns % self.lanes > 0)
