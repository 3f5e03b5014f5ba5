"""Whom the cost model gives the work to: what was fastest by far when splits were forced, on two threads of two machines."""

import numpy as np
import pytest

from gpurnn_kernels.cpu.cells import cell_of
from gpurnn_kernels.cpu.codegen.target import Target, describe
from gpurnn_kernels.cpu.threads.partition import Split, schedule
from gpurnn_kernels.spec import CellName, Spec

XEON = describe("x86_64-unknown-linux-gnu", "xeon", "+avx2,+fma,+avx512f,+avx512dq,+avx512vl")
ZEN_3 = describe("x86_64-unknown-linux-gnu", "znver3", "+avx2,+fma")


@pytest.mark.parametrize(
    ("machine", "cell", "hidden", "rows", "split"),
    [
        (XEON, "lstm", 32, 1, "one"),
        (XEON, "lstm", 64, 128, "rows"),
        (XEON, "lstm", 128, 1, "units"),
        (XEON, "lstm", 128, 32, "rows"),
        (XEON, "lstm", 256, 2, "units"),
        (XEON, "lstm", 512, 8, "units"),
        (XEON, "gru_before", 64, 1, "one"),
        (XEON, "gru_before", 64, 128, "rows"),
        (XEON, "gru_before", 256, 1, "units"),
        (XEON, "gru_before", 256, 128, "rows"),
        (XEON, "gru_before", 512, 4, "units"),
        (XEON, "gru_after", 64, 1, "one"),
        (XEON, "gru_after", 128, 128, "rows"),
        (XEON, "gru_after", 512, 8, "units"),
        (XEON, "gru_after", 512, 32, "units"),
        (ZEN_3, "lstm", 32, 1, "one"),
        (ZEN_3, "lstm", 32, 32, "rows"),
        (ZEN_3, "lstm", 512, 1, "units"),
        (ZEN_3, "lstm", 512, 4, "units"),
    ],
)
def test_two_threads(machine: Target, cell: CellName, hidden: int, rows: int, split: Split) -> None:
    spec = Spec(cell, hidden, hidden, np.dtype(np.float32))
    found = schedule(spec, 1, rows, 2, machine, cell_of(spec).products[0].panel)
    assert found.splits == (split,), found.reason
