"""Whole models as cases: the recurrent layers of models in use, with the batches and lengths that they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from bench.harness.cases import Case
from bench.harness.errors import BenchError


@dataclass(frozen=True)
class Model:
    """A model's recurrent layers, and the inputs that it is measured on."""

    name: str
    cell: str
    input: int
    hidden: int
    layers: int = 1
    directions: int = 1
    batch: Sequence[int] = (1,)
    seq: Sequence[int] = (1,)
    in_turn: bool = False
    ragged: bool = False
    stream: bool = False

    def cases(self, threads: Sequence[int]) -> list[Case]:
        """Each batch and length on all thread counts, one after the other."""
        return [
            Case(
                self.cell,
                self.hidden,
                batch,
                seq,
                self.input,
                count,
                layers=self.layers,
                directions=self.directions,
                in_turn=self.in_turn,
                ragged=self.ragged,
                stream=self.stream,
                model=self.name,
            )
            for batch, seq, count in product(self.batch, self.seq, threads)
        ]


MODELS = (
    Model("bilstm-60-128x2", "lstm", 60, 128, 2, 2, batch=(1, 8, 32), seq=(293, 589)),
    Model("bilstm-60-128x4", "lstm", 60, 128, 4, 2, batch=(1, 8, 32), seq=(293, 589)),
    Model("bilstm-256x2", "lstm", 256, 256, 2, 2, batch=(1, 16), seq=(25, 64, 80)),  # text lines of images
    Model("bilstm-512x3", "lstm", 512, 512, 3, 2, seq=(255,)),
    Model("bilstm-300-512x2-ragged", "lstm", 300, 512, 2, 2, batch=(32,), seq=(40,), ragged=True),
    Model("lstm-40-256x3", "lstm", 40, 256, 3, batch=(8,), seq=(160,)),
    Model("lstm-384x5", "lstm", 384, 384, 5, batch=(16,), seq=(200,)),
    Model("lstm-384x5-in-turn", "lstm", 384, 384, 5, batch=(16, 96), seq=(200,), in_turn=True),
    Model("lstm-1024x5-in-turn", "lstm", 1024, 1024, 5, batch=(16, 96), seq=(200,), in_turn=True),
    Model("lstm-1024", "lstm", 1024, 1024, seq=(64,)),
    Model("lstm-1024-many-rows", "lstm", 1024, 1024, batch=(4096,), seq=(4,)),
    Model("gru-10-128x2", "gru-after", 10, 128, 2, 2, batch=(32,), seq=(1000,)),
    Model("lstm-128-step", "lstm", 128, 128, stream=True),  # voice activity
    Model("lstm-640x2-step", "lstm", 640, 640, 2, stream=True),
    Model("gru-384x3-step", "gru-after", 384, 384, 3, stream=True),  # denoising
)
LARGE = (
    Model("lstm-384x5-in-turn", "lstm", 384, 384, 5, batch=(16, 96), seq=(1667,), in_turn=True),
    Model("lstm-1024x5-in-turn", "lstm", 1024, 1024, 5, batch=(16, 96), seq=(1667,), in_turn=True),
)
GRIDS = {"models": MODELS, "models-large": LARGE}
NAMES = tuple(dict.fromkeys(model.name for model in MODELS + LARGE))


def model_cases(grid: str, names: Sequence[str] | None, threads: Sequence[int]) -> list[Case]:
    """The cases of a grid, or of those of its models that are named."""
    found = [case for model in GRIDS[grid] if not names or model.name in names for case in model.cases(threads)]
    if not found:
        raise BenchError(f"grid {grid} has none of {', '.join(names or ())}; it has {', '.join(m.name for m in GRIDS[grid])}")
    return found
