# mypy: disable-error-code="no-untyped-def"
"""Where a thread of the pointwise kernels stands: which row of the batch is its own, and which units of that row."""

from functools import cache
from typing import Any, NamedTuple

from .compiler import cuda, inlined, types

THREADS = 256
COLUMNS = 32  # threads side by side over the units of a row: a warp, so that its loads are one line after the other
ROWS = THREADS // COLUMNS

int32, int64 = types.int32, types.int64


class Block(NamedTuple):
    """The threads of a block over rows and units; lanes: units of a thread, loaded and stored at once."""

    lanes: int = 1
    columns: int = COLUMNS  # threads side by side over the units of a row, a power of two

    @classmethod
    def over(cls, units: int, lanes: int) -> "Block":
        """Puts as many threads on a row as leave no more of them idle: where rows fill blocks, no thread needs a check."""
        threads = -(-units // lanes)
        columns = COLUMNS
        while columns < THREADS and -(-threads // columns) % 2 == 0:
            columns *= 2
        return cls(lanes, columns)

    @property
    def rows(self) -> int:
        return THREADS // self.columns

    def grid(self, rows: int, units: int) -> tuple[int, int]:
        return -(-rows // self.rows), -(-units // (self.lanes * self.columns))


class Standing(NamedTuple):
    place: Any  # () -> this thread's row, the first of its units
    inside: Any  # row, unit, batch -> whether they exist


@cache
def standing(block: Block, units: int) -> Standing:
    """Makes the functions for rows of `units` units; B * H stays below 2**27 rows and units."""
    ROWS, COLUMNS, LANES, SHIFT = block.rows, block.columns, block.lanes, block.columns.bit_length() - 1
    ALL_ROWS, ALL_UNITS = ROWS == 1, units % (LANES * COLUMNS) == 0

    @inlined
    def place():
        row, column = cuda.blockIdx.x, cuda.threadIdx.x
        if ROWS > 1:
            row, column = int32(row * ROWS + (column >> SHIFT)), column & int32(COLUMNS - 1)
        return row, int32((cuda.blockIdx.y * COLUMNS + column) * LANES)

    @inlined
    def inside(row, unit, batch):
        return (ALL_ROWS or row < batch) and (ALL_UNITS or unit < units)

    return Standing(place, inside)


@inlined
def row_and_column():
    """Returns this thread's row and column of a matrix of up to 2**32 rows, in a grid of `Block()`."""
    return int64(cuda.blockIdx.x) * ROWS + (cuda.threadIdx.x >> 5), cuda.blockIdx.y * COLUMNS + (cuda.threadIdx.x & 31)
