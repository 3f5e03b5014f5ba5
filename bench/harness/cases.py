"""Cases and grids as data.

T: steps   B: batch   I: input size   H: hidden size   G: gates (LSTM 4, GRU 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

GATES = {"lstm": 4, "gru": 3, "gru-after": 3}
CELLS = tuple(GATES)
PEERS = ("torch", "onnxruntime", "openvino", "numpy")
OURS = "gpurnn"
BASELINE = "numpy"  # shown, but never "the best peer"
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Case:
    """One layer on one input, float32: `gru` is reset-before, `gru-after` reset-after."""

    cell: str
    hidden: int
    batch: int
    seq: int
    input: int
    threads: int

    @property
    def gates(self) -> int:
        """G"""
        return GATES[self.cell]

    @property
    def projection_flops(self) -> float:
        """The flops of W_x x over the sequence."""
        return 2.0 * self.seq * self.batch * self.gates * self.hidden * self.input

    @property
    def recurrent_flops(self) -> float:
        """The flops of W_h h over the sequence."""
        return 2.0 * self.seq * self.batch * self.gates * self.hidden * self.hidden

    @property
    def flops(self) -> float:
        """2*T*B*G*H*(I+H): the matrix products alone, as everywhere in this bench."""
        return self.projection_flops + self.recurrent_flops

    @property
    def projection_bytes(self) -> int:
        """The bytes of W_x."""
        return FLOAT_BYTES * self.gates * self.hidden * self.input

    @property
    def recurrent_bytes(self) -> int:
        """The bytes of W_h, which is read once a step."""
        return FLOAT_BYTES * self.gates * self.hidden * self.hidden

    @property
    def stream_bytes(self) -> int:
        """The bytes of W_x and W_h, which a step of a stream reads once."""
        return self.projection_bytes + self.recurrent_bytes

    def __str__(self) -> str:
        return f"{self.cell} H={self.hidden} I={self.input} B={self.batch} T={self.seq}, {self.threads} thread(s)"


@dataclass(frozen=True)
class Grid:
    """A product of cases; an input size of None means I = H."""

    cells: Sequence[str]
    hidden: Sequence[int]
    batch: Sequence[int]
    inputs: Sequence[int | None]
    threads: Sequence[int]
    seq: Sequence[int] = (64,)

    def cases(self) -> list[Case]:
        """Every case once, on all thread counts one after the other: a machine may be slower ten minutes later."""
        product_of_all = product(self.cells, self.inputs, self.hidden, self.batch, self.seq, self.threads)
        cases = [Case(cell, H, B, T, I or H, threads) for cell, I, H, B, T, threads in product_of_all]
        return list(dict.fromkeys(cases))


def infer_grid(name: str, threads: Sequence[int]) -> Grid:
    """`quick` takes some minutes, `full` more than an hour."""
    if name == "full":
        return Grid(CELLS, (32, 64, 100, 128, 256, 512, 1024), (1, 2, 4, 8, 32, 128), (None, 40), threads)
    return Grid(CELLS, (64, 128, 256, 512), (1, 8, 32), (None,), threads)


def step_grid(name: str) -> Grid:
    """One step at a time, on one thread."""
    hidden = (32, 64, 100, 128, 256, 512, 1024) if name == "full" else (64, 128, 256, 512)
    return Grid(CELLS, hidden, (1, 8) if name == "full" else (1,), (None,), (1,), seq=(1,))


def train_grid(name: str, threads: Sequence[int]) -> Grid:
    """Training step: forward and backward."""
    if name == "full":
        return Grid(CELLS, (64, 128, 256, 512), (8, 32, 128), (None,), threads)
    return Grid(CELLS, (64, 256), (8, 32), (None,), threads[-1:])
