"""Weights of fewer bits as arrays: 8-bit integers with a scale for each row, and bfloat16."""

from dataclasses import dataclass

import numpy as np

from .spec import Array

LARGEST = 127
MOST_SCALE = 2.0**120  # an integer times a scale stays finite
BF16_NAN = 0x7FC0
LEAST_NORMAL = 0x00800000  # bits of the least float that is not denormal


@dataclass(frozen=True, eq=False)
class Quantised:
    """A matrix of 8-bit integers (rows, K) with a scale for each row (rows,): weights = integers * scale."""

    values: Array  # int8 (rows, K)
    scales: Array  # float32 (rows,)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, K)."""
        rows, columns = self.values.shape
        return rows, columns

    def __len__(self) -> int:
        return len(self.values)

    def floats(self) -> Array:
        """Gives the weights, float32 (rows, K)."""
        found: Array = self.values * self.scales[:, None]
        return found

    def frozen(self) -> "Quantised":
        """Gives the matrix in arrays that nobody writes to."""
        if not (self.values.flags.writeable or self.scales.flags.writeable):
            return self
        copy = Quantised(np.array(self.values, np.int8, order="C"), np.array(self.scales, np.float32, order="C"))
        copy.values.flags.writeable = copy.scales.flags.writeable = False
        return copy


def quantised(matrix: Array) -> Quantised:
    """Gives the integers of a matrix of floats: a row's largest is 127. A row of zeros, or of numbers so small that their
    scale would be denormal, becomes zeros with the scale 1. A row with a NaN or an infinity has the scale NaN."""
    with np.errstate(all="ignore"):
        largest = np.abs(matrix).max(1, initial=0)
        scales = (largest / np.float32(LARGEST) + (largest - largest)).astype(np.float32)
        scales[scales < np.finfo(np.float32).tiny] = 1  # products take denormal scales for zeros
        values = np.nan_to_num(np.rint(matrix / scales[:, None]), nan=0, posinf=0, neginf=0).astype(np.int8)
    return Quantised(values, scales)


def check_scales(label: str, scales: Array, turned: int = 0) -> None:
    """Raises ValueError unless all scales are above 0 and below 2**120; the first `turned` ones may be below 0."""
    sizes = np.concatenate([np.abs(scales[:turned]), scales[turned:]])
    bad = np.flatnonzero(~((sizes > 0) & (sizes < MOST_SCALE)))
    if bad.size:
        raise ValueError(f"{label}: row {bad[0]}: expected a scale above 0 and below 2**120, got {scales[bad[0]]}")


def as_bf16(matrix: Array) -> Array:
    """Gives numbers as bfloat16, the bits of each in a uint16: rounded to nearest even, denormal ones to zero."""
    bits = np.ascontiguousarray(matrix, np.float32).view(np.uint32)
    magnitude = bits & 0x7FFFFFFF
    found = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    found = np.where(magnitude < LEAST_NORMAL, (bits >> 16 & 0x8000).astype(np.uint16), found)
    return np.where(magnitude > 0x7F800000, np.uint16(BF16_NAN), found)


def from_bf16(bits: Array) -> Array:
    """Gives numbers of bfloat16, the bits of each in a uint16, as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
