"""The cell and the layout of an RNN's weights, told by their shapes, for every Keras since 0.3.

Keras 2 and 3: kernel (I, G*H), recurrent_kernel (H, G*H), and a bias, which tells the layout:
    LSTM (4*H,)    GRU (3*H,) reset-before, (2, 3*H) reset-after
    CuDNNLSTM (8*H,)    CuDNNGRU (6*H,)    each gate's kernel holds the bytes of its transpose
Keras 0 and 1: the same with consume_less="gpu", else an array for each gate: W (I, H), U (H, H), b (H,), the gates in the
order i, c, f, o or z, r, h.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.spec import Array

from ...gates import Kind, Source

Shapes = Sequence[tuple[int, ...]]


class Layout(NamedTuple):
    """A cell as the shapes of its weights tell it."""

    title: str  # Keras's name for it
    kind: Kind
    input_size: int
    hidden_size: int
    reset_after: bool | None  # a GRU's form; None where nothing tells
    read: Callable[[Sequence[Array]], Source]


class Cell(NamedTuple):
    """The weights of one direction, the gates in the order of Keras 2."""

    title: str
    kind: Kind
    input_size: int
    hidden_size: int
    reset_after: bool | None
    source: Source


def cell_of(weights: Sequence[Array]) -> Cell | None:
    """Gives the cell that these weights, in Keras's order, belong to; None if they belong to none."""
    layout = layout_of([array.shape for array in weights])
    return None if layout is None else Cell(*layout[:5], layout.read(weights))


def layout_of(shapes: Shapes) -> Layout | None:
    """Gives the layout of weights of these shapes; None if they are no cell's."""
    if len(shapes) in (9, 12):
        return _single_gates(shapes)
    if len(shapes) not in (2, 3) or len(shapes[0]) != 2 or len(shapes[1]) != 2:
        return None
    (inputs, columns), (hidden, same) = shapes[0], shapes[1]
    if columns != same or hidden < 1 or inputs < 1 or columns not in (3 * hidden, 4 * hidden):
        return None
    kind: Kind = "LSTM" if columns == 4 * hidden else "GRU"
    sizes = kind, inputs, hidden
    if len(shapes) == 2:
        return Layout(kind, *sizes, None, _plain)
    bias = shapes[2]
    if bias == (columns,):
        return Layout(kind, *sizes, False if kind == "GRU" else None, _plain)
    if bias == (2, columns) and kind == "GRU":
        return Layout(kind, *sizes, True, _plain)
    if bias == (2 * columns,):
        return Layout(f"CuDNN{kind}", *sizes, True if kind == "GRU" else None, _cudnn)
    return None


def _single_gates(shapes: Shapes) -> Layout | None:
    if len(shapes[0]) != 2:
        return None
    inputs, hidden = shapes[0]
    if list(shapes) != [(inputs, hidden), (hidden, hidden), (hidden,)] * (len(shapes) // 3):
        return None
    if len(shapes) == 12:
        return Layout("LSTM", "LSTM", inputs, hidden, None, lambda weights: _joined(weights, (0, 2, 1, 3)))
    return Layout("GRU", "GRU", inputs, hidden, False, lambda weights: _joined(weights, (0, 1, 2)))


def _joined(weights: Sequence[Array], order: Sequence[int]) -> Source:
    W, U, b = ([weights[3 * gate + kind] for gate in order] for kind in range(3))
    return Source(np.concatenate([w.T for w in W]), np.concatenate([u.T for u in U]), np.concatenate(b))


def _plain(weights: Sequence[Array]) -> Source:
    kernel, recurrent, *bias = weights
    b_x: Any = bias[0] if bias else None
    b_h = None
    if b_x is not None and b_x.ndim == 2:
        b_x, b_h = b_x
    return Source(kernel.T, recurrent.T, b_x, b_h)


def _cudnn(weights: Sequence[Array]) -> Source:
    kernel, recurrent, bias = weights
    count = kernel.shape[1] // recurrent.shape[0]
    W_x, W_h = (
        np.concatenate([np.ascontiguousarray(gate).reshape(gate.shape[::-1]) for gate in np.split(array, count, axis=1)])
        for array in (kernel, recurrent)
    )
    return Source(W_x, W_h, *np.split(bias, 2))
