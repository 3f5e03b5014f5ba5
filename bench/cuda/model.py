"""Time a step, predicted from flops, bytes, barriers and launches: to be confirmed or refuted by the first run on a GPU.

    stepwise     max(host, device), host = launches and products, device = gaps + W_h read + multiply-adds + pointwise bytes
    persistent   multiply-adds at the rate of the tile's instructions + the copy of h + barriers

W_h counts from the L2 cache: at these sizes it stays there from step to step. These are predictions, never results.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from bench.cuda import cards
from bench.cuda.cards import CARDS, Card
from bench.harness.cases import CELLS, FLOAT_BYTES, Case

ON_CHIP = 0.5  # of the registers, that weights may take


@dataclass(frozen=True)
class Prediction:
    """Microseconds a step; persistent is None where W_h does not fit on the chip."""

    stepwise: float
    stepwise_by: str  # what it waits for
    persistent: float | None


def predict(card: Card, case: Case) -> Prediction:
    exchanges = 2 if case.cell == "gru" else 1
    G, H, B = case.gates, case.hidden, case.batch
    clock = 1e9 * card.clock
    flops = G * H * H * B / (card.multiprocessors * card.lanes * clock)  # multiply-adds
    weights = case.recurrent_bytes / (card.l2 * clock)
    pointwise = FLOAT_BYTES * B * H * (2 * G + 4) / (1e9 * card.memory)
    device = 2 * exchanges * cards.GAP + max(flops, weights) + pointwise
    host = exchanges * (cards.HOST_LAUNCH + cards.HOST_PRODUCT)
    by = "host" if host > device else "multiply-adds" if flops > weights else "gaps and W_h"
    persistent = None
    if case.recurrent_bytes <= ON_CHIP * 1024 * card.registers * card.multiprocessors:
        h = FLOAT_BYTES * B * H
        copy = max(h / (card.l2_port * clock), h * card.multiprocessors / (card.l2 * clock))
        persistent = flops / cards.ISSUE + exchanges * (copy + cards.BARRIER + cards.EXCHANGE) + cards.CELL
    return Prediction(1e6 * max(host, device), by, None if persistent is None else 1e6 * persistent)


def show(console: Console) -> None:
    """Every card, cell and size."""
    table = Table(title="Predicted microseconds a step, float32, I = H (a model; nothing here was measured)", box=box.SIMPLE)
    for head in ("card", "cell", "H", "B", "stepwise", "waits for", "persistent"):
        table.add_column(head, justify="left" if head in ("card", "cell", "waits for") else "right")
    for card in CARDS:
        for cell in CELLS:
            for hidden in (128, 256, 512, 1024):
                for batch in (1, 16, 64):
                    found = predict(card, Case(cell, hidden, batch, 1, hidden, 1))
                    persistent = "does not fit" if found.persistent is None else f"{found.persistent:.1f}"
                    sizes = (card.name, cell, str(hidden), str(batch))
                    table.add_row(*sizes, f"{found.stepwise:.1f}", found.stepwise_by, persistent)
    console.print(table)
