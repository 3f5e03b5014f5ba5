"""`python -m bench cuda-static`: what the compiler makes of every kernel, for seven GPUs, on a machine without one.

The compiler, the cards' figures and the occupancy rules are those of the tests, in `emulator/`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness.machine import ROOT, cpu_count, describe

if TYPE_CHECKING:
    from bench.cuda.catalogue import Listed

COLUMNS = ("registers", "spills", "local", "calls", "wide_loads", "wide_stores", "special", "instructions")


@dataclass(frozen=True)
class Row:
    """One kernel for one card; a kernel that cannot run there has only its refusal. Counts are of the code as it stands."""

    family: str
    name: str
    form: str
    device: str
    capability: str
    refusal: str = ""
    threads: int = 0  # of a block
    registers: int = 0  # of a thread
    spills: int = 0  # loads and stores of local memory
    local: int = 0  # bytes a thread, the stack included
    calls: int = 0
    shared: int = 0  # bytes a block, static and dynamic
    wide_loads: int = 0  # 128 bits
    wide_stores: int = 0
    loads: int = 0
    stores: int = 0
    special: int = 0  # MUFU
    multiply_adds: int = 0
    instructions: int = 0
    instructions_per_element: float | None = None
    resident_blocks: int = 0
    occupancy: float = 0.0  # of the multiprocessor's threads

    @property
    def clean(self) -> bool:
        """Persistent kernels may hold calls: what the compiler keeps for warps that have diverged, which theirs never do."""
        return not (self.spills or self.local or (self.calls and self.family != "persistent"))


def toolkit() -> None:
    """Makes `emulator/` importable: only there is a compiler that needs no driver."""
    root = str(ROOT / "emulator")
    if root not in sys.path:
        sys.path.append(root)


def _row(listed: Listed, device: Any) -> Row:
    from ptx_emulator.occupancy import resident_blocks
    from ptx_emulator.sass import card

    limits = device.limits
    labels = (listed.family, listed.name, listed.form, limits.name, "{}.{}".format(*limits.compute_capability))
    kernel = listed.kernel
    if kernel is None:
        return Row(*labels, refusal=listed.refusal)
    found = card(kernel, limits.compute_capability)
    shared = found.shared + listed.shared
    blocks = resident_blocks(limits, kernel.threads, found.registers, shared)
    return Row(
        *labels,
        threads=kernel.threads,
        registers=found.registers,
        spills=found.spills,
        local=found.local + found.stack,
        calls=found.calls,
        shared=shared,
        wide_loads=found.wide_loads,
        wide_stores=found.wide_stores,
        loads=found.loads,
        stores=found.stores,
        special=found.special,
        multiply_adds=found.multiply_adds,
        instructions=found.instructions,
        instructions_per_element=found.instructions / listed.elements if listed.elements else None,
        resident_blocks=blocks,
        occupancy=blocks * kernel.threads / limits.threads_per_multiprocessor,
    )


def _of_card(name: str) -> list[Row]:
    """In a process of its own: compilers keep much memory, and use one CPU."""
    toolkit()
    from bench.cuda.catalogue import persistents, pointwise, steps
    from ptx_emulator.device import EmulatedDevice

    device = EmulatedDevice(name)
    return [_row(listed, device) for listed in (*pointwise(), *steps(), *persistents(device))]


def rows(console: Console) -> Iterator[Row]:
    """All kernels, card by card."""
    from ptx_emulator.table import DEVICES

    with ProcessPoolExecutor(cpu_count(), get_context("spawn")) as pool:
        running = {pool.submit(_of_card, name): name for name in DEVICES}
        for done in as_completed(running):
            yield from done.result()
            console.print(f"compiled for {running[done]}", highlight=False)


def _across(found: list[Row], field: str) -> str:
    """One figure for all cards, or the range of them."""
    values = [getattr(row, field) for row in found]
    low, high = min(values), max(values)
    text = (lambda v: f"{v:.1f}") if isinstance(low, float) else str
    return text(low) if low == high else f"{text(low)}-{text(high)}"


def show(console: Console, found: list[Row]) -> None:
    """A line a kernel: the ranges over the cards. The rows of a kernel stand together."""
    table = Table(title="Compiled kernels", title_justify="left", header_style="bold", box=box.SIMPLE)
    for title in ("kernel", "form", *(c.replace("_", " ") for c in COLUMNS), "an element", "occupancy %", "cards"):
        table.add_column(title, justify="left" if title in ("kernel", "form") else "right")
    for (_, name, form), group in groupby(found, key=lambda row: (row.family, row.name, row.form)):
        of_kernel = list(group)
        ran = [row for row in of_kernel if not row.refusal]
        if not ran:
            table.add_row(name, form, *["-"] * (len(COLUMNS) + 2), f"0/{len(of_kernel)}")
            continue
        each = "-" if ran[0].instructions_per_element is None else _across(ran, "instructions_per_element")
        low, high = (round(100 * pick(row.occupancy for row in ran)) for pick in (min, max))
        colour = "" if all(row.clean for row in ran) else "[red]"
        figures = [_across(ran, column) for column in COLUMNS]
        occupancy = str(low) if low == high else f"{low}-{high}"
        table.add_row(f"{colour}{name}", form, *figures, each, occupancy, f"{len(ran)}/{len(of_kernel)}")
    console.print(table)


def run(console: Console, path: Path) -> int:
    """Exit status: 1 when some kernel spills or uses local memory, or one that is not persistent calls."""
    toolkit()
    from ptx_emulator.compile import why_not

    reason = why_not()
    if reason is not None:
        console.print(f"no CUDA compiler here ({reason})", highlight=False)
        return 0
    found = sorted(rows(console), key=lambda row: (row.family, row.name, row.form, len(row.capability), row.capability))
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"bench": "cuda-static", "machine": describe(), "rows": [asdict(row) for row in found]}
    path.write_text(json.dumps(report, indent=1) + "\n")
    show(console, found)
    unclean = [row for row in found if not row.clean]
    for row in unclean:
        what = f"{row.spills} spills, {row.local} bytes of local memory, {row.calls} calls"
        console.print(f"[red]{row.name} {row.form} for {row.capability}: {what}[/red]", highlight=False)
    console.print(f"written: {path}", highlight=False, soft_wrap=True)
    return bool(unclean)
