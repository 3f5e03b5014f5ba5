"""Cases and grids as data.

T: steps   B: batch   I: input size   H: hidden size   G: gates (LSTM 4, GRU 3)   L: layers   D: directions
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

from gpurnn_kernels.spec import REDUCED as REDUCED

GATES = {"lstm": 4, "gru": 3, "gru-after": 3}
CELLS = tuple(GATES)
PEERS = ("torch", "onnxruntime", "openvino", "numpy")
OURS = "gpurnn"
BASELINE = "numpy"  # shown, but never "the best peer"
FLOAT_BYTES = 4
FLOAT32 = "float32"
PRECISIONS = (FLOAT32, *REDUCED)
PEERS_IN = {"torch": REDUCED, "onnxruntime": ("int8",), "openvino": ("bf16",)}  # the reduced precisions that a peer has
LENGTHS_SEED = 20


def precision_of(implementation: str) -> str:
    """The precision that an implementation computes in: the end of a name such as `torch-int8`, else float32."""
    end = implementation.rpartition("-")[2]
    return end if end in REDUCED else FLOAT32


def implementations(peers: Iterable[str], precisions: Iterable[str]) -> list[str]:
    """gpurnn and the peers in float32 and, where a reduced precision is among those asked for, in reduced ones too: gpurnn in
    those, a peer in all that it has."""
    asked = [one for one in REDUCED if one in precisions]
    found = [OURS, *(f"{OURS}-{one}" for one in asked)]
    for peer in peers:
        found += [peer, *(f"{peer}-{one}" for one in (PEERS_IN.get(peer, ()) if asked else ()))]
    return found


@dataclass(frozen=True)
class Case:
    """Layers on one input, which is float32: `gru` is reset-before, `gru-after` reset-after."""

    cell: str
    hidden: int
    batch: int
    seq: int
    input: int
    threads: int
    layers: int = 1
    directions: int = 1
    in_turn: bool = False  # of one direction: every second layer runs backward
    ragged: bool = False  # rows have lengths of their own
    stream: bool = False  # a step at a time, the state kept between calls
    model: str = ""  # the name in the grid of models

    @property
    def gates(self) -> int:
        """G"""
        return GATES[self.cell]

    @property
    def outputs(self) -> int:
        """D*H"""
        return self.directions * self.hidden

    @property
    def layer_inputs(self) -> tuple[int, ...]:
        """The input size of each layer."""
        return (self.input, *[self.outputs] * (self.layers - 1))

    def is_backward(self, layer: int, direction: int) -> bool:
        """True if a direction of a layer runs backward in time."""
        return direction == 1 or (self.in_turn and layer % 2 == 1)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Each row's steps: T, or where rows are ragged 1 to T, in no order; one of them has T."""
        if not self.ragged:
            return (self.seq,) * self.batch
        draw = Random(LENGTHS_SEED)
        found = [draw.randint(1, self.seq) for _ in range(self.batch)]
        found[draw.randrange(self.batch)] = self.seq
        return tuple(found)

    @property
    def row_steps(self) -> int:
        """T*B, or the steps that ragged rows have."""
        return sum(self.lengths)

    @property
    def units(self) -> int:
        """How often the cell equations of a unit are computed."""
        return self.row_steps * self.hidden * self.directions * self.layers

    @property
    def projection_flops(self) -> float:
        """The flops of W_x x over the sequence."""
        return 2.0 * self.row_steps * self.gates * self.outputs * sum(self.layer_inputs)

    @property
    def recurrent_flops(self) -> float:
        """The flops of W_h h over the sequence."""
        return 2.0 * self.units * self.gates * self.hidden

    @property
    def flops(self) -> float:
        """2*T*B*G*H*(I+H), of all layers and directions: the matrix products alone, as everywhere in this bench."""
        return self.projection_flops + self.recurrent_flops

    @property
    def projection_bytes(self) -> int:
        """The bytes of all W_x."""
        return FLOAT_BYTES * self.gates * self.outputs * sum(self.layer_inputs)

    @property
    def recurrent_bytes(self) -> int:
        """The bytes of a layer's W_h in all its directions, which are read once a step."""
        return FLOAT_BYTES * self.gates * self.outputs * self.hidden

    @property
    def stream_bytes(self) -> int:
        """The bytes of all W_x and W_h, which a step of a stream reads once."""
        return self.projection_bytes + self.layers * self.recurrent_bytes

    def __str__(self) -> str:
        what = self.model or f"{self.cell} H={self.hidden} I={self.input}"
        return f"{what} B={self.batch} T={self.seq}, {self.threads} thread(s)"


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
