"""The recordings, one padded batch a split.

Notation: T steps of the longest utterance, B utterances, I = 12 coefficients a step.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SPEAKERS = 9
COEFFICIENTS = 12


@dataclass(frozen=True)
class Utterances:
    """A ragged batch: row b has lengths[b] valid steps, at the front; zeros after them."""

    x: Array  # (T, B, I) float32
    lengths: Array  # (B,) int64
    speakers: Array  # (B,) int64, 0 to 8

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """The number of valid steps of all utterances."""
        return int(self.lengths.sum())

    @property
    def valid(self) -> Array:
        """The steps that belong to an utterance: bool (T, B)."""
        return np.arange(len(self.x))[:, None] < self.lengths

    def rows(self, index: Any) -> "Utterances":
        """Gives some of the utterances, as long as the longest of them."""
        lengths = self.lengths[index]
        return Utterances(self.x[: lengths.max(initial=0), index], lengths, self.speakers[index])


def pad(steps: Array, lengths: Array) -> Array:
    """Turns utterances end to end, (S, I), into (T, B, I) with zeros past each length."""
    valid = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (B, T): row by row, as the steps are
    x = np.zeros((*valid.shape, steps.shape[1]), steps.dtype)
    x[valid] = steps
    return np.ascontiguousarray(x.swapaxes(0, 1))


def load(split: Literal["train", "test"]) -> Utterances:
    """Loads the 270 utterances to train on, or the 370 to test with."""
    with files(__package__).joinpath("japanese_vowels.npz").open("rb") as file, np.load(file) as arrays:
        lengths = arrays[f"{split}_lengths"].astype(np.int64)
        return Utterances(pad(arrays[f"{split}_steps"], lengths), lengths, arrays[f"{split}_speakers"].astype(np.int64))
