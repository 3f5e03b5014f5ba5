"""The arrays that a forward pass leaves for the backward pass, on whichever path it ran."""

from dataclasses import dataclass
from typing import NamedTuple

from .host.device import DeviceArray


class SavedDirection(NamedTuple):
    """The arrays of one direction.

    gates: f, i, o, g or z, r, n, activated. extra: an LSTM's c, a reset-before GRU's r * h_prev (0 past lengths), a
    reset-after GRU's q = W_hn h_prev + b_hn.
    """

    gates: DeviceArray  # (T, B, G*H), as wide as computed in
    extra: DeviceArray  # (T, B, H)


@dataclass(frozen=True)
class Saved:
    """The arrays of one layer. Nobody else changes them."""

    x: DeviceArray  # (T, B, I)
    y: DeviceArray  # (T, B, D * H)
    directions: list[SavedDirection]
