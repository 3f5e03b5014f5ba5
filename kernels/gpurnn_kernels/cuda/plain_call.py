"""A stack of layers over contiguous arrays, without initial state and lengths."""

from collections.abc import Sequence

from .engine import Layer, forward
from .host.device import DeviceArray


class PlainCall:
    bytes = 0  # that it holds

    def __init__(self, layers: Sequence[Layer], steps: int, batch: int, strides: Sequence[int]) -> None:
        """strides: bytes from step to step and from row to row, of x, then of y: rows come first where theirs are longer."""
        self._layers = layers
        self._rows_first = strides[1] > strides[0]

    def run(self, x: DeviceArray, y: DeviceArray, between: DeviceArray, h: DeviceArray, c: DeviceArray) -> None:
        targets = [array.swapaxes(0, 1) if self._rows_first else array for array in (y, between)]
        source = x.swapaxes(0, 1) if self._rows_first else x
        count = len(self._layers)
        for index, layer in enumerate(self._layers):
            directions = len(layer.specs)
            part = slice(index * directions, (index + 1) * directions)
            final = [array[part] for array in (h, c)[: len(layer.specs[0].shape.states)]]
            out = targets[(count - 1 - index) % 2]
            forward(layer, source, [None] * len(final), None, out, final)
            source = out
