"""Arrays that calls on several streams and threads read: a layer's weights on a device, zeros for initial states. No GPU."""

from typing import Any

import numpy as np
import pytest
from helpers import new_layer

from ptx_emulator.compile import why_not

if why := why_not():
    pytest.skip(why, allow_module_level=True)

from gpurnn_kernels import cuda as backend


class Published:
    """A device that hands NumPy arrays over, and keeps those that it published."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def publish(self, *arrays: Any) -> list[Any]:
        copies = [array.copy() for array in arrays]
        self.all += copies
        return copies


def prepared(cell: str, **options: Any) -> Any:
    return new_layer(cell, 3, 5, seed=0, **options)._prepared.layers(backend)[0]


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"fast_math": True}, {"dtype": "float16", "fast_math": True}])
@pytest.mark.parametrize("cell", ["lstm", "gru_after"])
def test_weights_and_zeros_are_published(cell: str, options: dict[str, Any]) -> None:
    """Nothing of them is left to the order of the stream that was the current one when they were made."""
    device, layer = Published(), prepared(cell, **options)
    (weights,) = layer.on(device)
    arrays = [*vars(weights).values(), layer.zeros(device, 4)]
    assert all(any(array is one or array.base is one for one in device.all) for array in arrays)
    b = weights.b.copy()
    if "fast_math" in options:
        b[: -len(b) // (4 if cell == "lstm" else 3)] *= 0.5
    np.testing.assert_array_equal(weights.pointwise_b, b)


def test_zeros_of_the_largest_batch_serve_smaller_ones() -> None:
    device, other, layer = Published(), Published(), prepared("lstm")
    for batch in (3, 8, 1, 8, 5, 0):
        assert layer.zeros(device, batch).shape == (batch, 5)
        assert layer.zeros(other, batch).shape == (batch, 5)
    assert [len(array) for array in device.all] == [len(array) for array in other.all] == [3, 8]


def test_zeros_have_as_many_rows_as_were_asked_for() -> None:
    """Also when another thread asks for fewer while they are looked up."""
    device, layer = Published(), prepared("lstm")

    class Interrupted(int):
        """A number of rows: when it is compared, another thread takes a turn."""

        def __eq__(self, other: object) -> bool:
            layer.zeros(device, 1)
            return int(self) == other

        def __gt__(self, other: int) -> bool:
            layer.zeros(device, 1)
            return int(self) > other

        __hash__ = int.__hash__

    for _ in range(2):
        assert len(layer.zeros(device, Interrupted(4))) == 4
