"""The cell equations alone, over vectors in L1: what a step costs besides its products.

As in a step of many rows: the kernels' own functions, a bundle of vectors at a time.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import njit

from bench.harness.cases import CELLS
from gpurnn_kernels.cpu.cells import gru_after, gru_before, lstm
from gpurnn_kernels.cpu.codegen.aligned import aligned, aligned_zeros
from gpurnn_kernels.cpu.codegen.bundle import BUNDLE, put
from gpurnn_kernels.cpu.codegen.descriptors import ROW_ENTRY, V1, V2, V4
from gpurnn_kernels.cpu.codegen.intrinsics import flush_denormals, restore_denormals

VECTORS = 8 * BUNDLE  # of units, one a row
RUNS = 400  # in a sample
SAMPLES = 30  # the best counts, as of the machine's other limits
FLOATS = V1 // 4

_compiled: Any = njit(nogil=True, boundscheck=False, error_model="numpy")

# words: slot, (slot_n,) state.., then y's entry in the row table, bytes along it, units from there on
lstm_cell = lstm.lstm.form("h_next", "y").run
reset = gru_before.reset.form().run
update = gru_before.update.form().run
gru_after_cell = gru_after.gru_after.form().run


@_compiled
def _lstm(zero, addresses, y_left):  # type: ignore[no-untyped-def]
    words, slots, _, state, rows = addresses
    put(words, (slots, state, state + VECTORS * V1, rows, 0, y_left), (V4, V1, V1, ROW_ENTRY, 0, 0))
    for _ in range(VECTORS // BUNDLE):
        lstm_cell(zero, words)


@_compiled
def _gru(zero, addresses, y_left):  # type: ignore[no-untyped-def]
    words, slots, slots_n, state, rows = addresses
    put(words, (slots, state, state + VECTORS * V1), (V2, V1, V1))
    for _ in range(VECTORS // BUNDLE):
        reset(zero, words)
    put(words, (slots, slots_n, state, state + VECTORS * V1, rows, 0, y_left), (V2, V1, V1, V1, ROW_ENTRY, 0, 0))
    for _ in range(VECTORS // BUNDLE):
        update(zero, words)


@_compiled
def _gru_after(zero, addresses, y_left):  # type: ignore[no-untyped-def]
    words, slots, _, state, rows = addresses
    put(words, (slots, state, state + VECTORS * V1, rows, 0, y_left), (V4, V1, V1, ROW_ENTRY, 0, 0))
    for _ in range(VECTORS // BUNDLE):
        gru_after_cell(zero, words)


_STEPS = {"lstm": _lstm, "gru": _gru, "gru-after": _gru_after}


@_compiled
def _repeated(step, zero, addresses, y_left, runs):  # type: ignore[no-untyped-def]
    before = flush_denormals()
    for _ in range(runs):
        step(zero, addresses, y_left)
    restore_denormals(before)


def _seconds(cell: str, addresses: tuple[int, ...], runs: int) -> float:
    begin = time.perf_counter()
    _repeated(_STEPS[cell], np.float32(0), addresses, FLOATS, runs)
    return time.perf_counter() - begin


def unit_ns() -> dict[str, float]:
    """Nanoseconds of one thread for the equations of one unit of one row, by cell."""
    single, word = np.dtype("float32"), np.dtype("int64")
    slots, slots_n, y = (aligned(VECTORS * count * FLOATS, single) for count in (4, 1, 1))
    slots[:] = np.random.default_rng(0).standard_normal(slots.size)
    slots_n[:] = slots[: slots_n.size]
    state, words = aligned_zeros(2 * VECTORS * FLOATS, single), aligned_zeros(32, word)
    rows = aligned_zeros(VECTORS * ROW_ENTRY // 8, word)
    rows[:: ROW_ENTRY // 8] = y.ctypes.data + V1 * np.arange(VECTORS)
    addresses = tuple(array.ctypes.data for array in (words, slots, slots_n, state, rows))
    found = {}
    for cell in CELLS:
        _seconds(cell, addresses, 1)  # compiles
        found[cell] = min(_seconds(cell, addresses, RUNS) for _ in range(SAMPLES)) * 1e9 / (RUNS * VECTORS * FLOATS)
    return found
