"""Cases on a GPU, as data. Letters as in `bench.harness.cases`; I = H."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from bench.harness.cases import CELLS, Case

PRECISIONS = ("float32", "tf32", "float16")
STEPS = 128


@dataclass(frozen=True)
class GpuCase:
    """One layer on one input: `forward` the outputs, `train` the outputs and all gradients."""

    kind: str
    cell: str
    hidden: int
    batch: int
    seq: int
    precision: str

    @property
    def case(self) -> Case:
        """Without what only a GPU has."""
        return Case(self.cell, self.hidden, self.batch, self.seq, self.hidden, 1)

    def __str__(self) -> str:
        return f"{self.kind} {self.cell} H={self.hidden} B={self.batch} T={self.seq} {self.precision}"


def grid(name: str) -> list[GpuCase]:
    """`full` takes some minutes on one GPU, most of them compiling; `quick` a part of it."""
    hidden, batch = ((128, 256, 512, 1024), (1, 16, 64)) if name == "full" else ((256, 1024), (1, 16))
    sizes = list(product(CELLS, hidden, batch))
    forward = [GpuCase("forward", cell, H, B, STEPS, precision) for precision in PRECISIONS for cell, H, B in sizes]
    return forward + [GpuCase("train", cell, H, B, STEPS, "float32") for cell, H, B in sizes if B > 1]
