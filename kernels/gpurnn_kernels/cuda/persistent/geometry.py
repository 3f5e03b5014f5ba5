"""How a layer is cut into blocks: what the forward and the backward pass have in common.

A block owns `units` of the H units for the whole sequence, and a slice of the batch. Blocks of one slice exchange h (forward)
or shares of dh (backward) at each step; those of different slices never meet. The grid is (slices, blocks).

          H units ->   block 0    block 1    block 2           a block: num_gates * units rows of W_h (forward),
                     +----------+----------+----------+        or H columns of them (backward), in tiles of warp_rows
    batch, slice 0   |  units   |          |          |
                     +----------+----------+----------+          row tile 0   [ k: split 0 | split 1 ]   2 warps
          slice 1    |          |          |          |          row tile 1   [ k: split 0 | split 1 ]   2 warps
                     +----------+----------+----------+          ..           groups row tiles, groups * splits warps

A warp holds a row tile's weights for its split of k: `lanes` lanes share k, each with quads of 4 neighbouring k, of which
`held` lie in registers and the others in shared memory. It sweeps them over the rows of its slice, `tile.batch` at a time:
`tiles` times as straight-line code, which runs `turns` times a step. So a block has room for turns * tiles * tile.batch rows.

Shared memory, in 32-bit words; sizes are those of `ForwardLayout` and `BackwardLayout`:

    forward    | weights | h: rows x width | reset: rows x width | sums | projected | cells | biases | lengths |
    backward   | weights | operand: rows x K | shares, first the sums | inputs | carried | lengths |
"""

from dataclasses import dataclass
from typing import Any

from ...spec import CELL_SHAPES, CellName, CellShape
from ..intrinsics.tile import WARP


@dataclass(frozen=True)
class Geometry:
    """All that a persistent kernel is compiled for, as far as both passes have it."""

    cell: CellName
    hidden: int
    units: int  # of a block
    lanes: int  # that share the k of a row of weights
    held: int  # quads a lane and row in registers, of each product
    tiles: int  # of batch rows, as straight-line code
    turns: int  # times that the code runs in a step
    reverse: bool
    async_copies: bool  # compute capability 8.0 on

    @property
    def shape(self) -> CellShape:
        """The cell's row in the table of cells."""
        return CELL_SHAPES[self.cell]

    @property
    def num_gates(self) -> int:
        return self.shape.gates

    @property
    def has_c(self) -> bool:
        """Tells whether the state has c."""
        return "c" in self.shape.states

    @property
    def resets_before(self) -> bool:
        """Tells whether a step has a second product, which waits for r * h of all units."""
        return self.shape.products > 1

    @property
    def blocks(self) -> int:
        """Blocks that share a slice of the batch."""
        return -(-self.hidden // self.units)

    @property
    def alone(self) -> bool:
        """Tells whether a block meets no other."""
        return self.blocks == 1

    @property
    def warps(self) -> int:
        raise NotImplementedError

    @property
    def threads(self) -> int:
        return WARP * self.warps

    @property
    def layout(self) -> Any:
        raise NotImplementedError

    @property
    def shared_bytes(self) -> int:
        return 4 * int(self.layout.end)


def laid_out(sizes: dict[str, int]) -> dict[str, int]:
    """Places parts one after the other: returns the first word of each, and the end."""
    places, at = {}, 0
    for name, size in sizes.items():
        places[name] = at
        at += size
    return {**places, "end": at}
