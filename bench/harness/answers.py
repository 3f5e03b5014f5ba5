"""Checks that the implementations agree, before any time is reported."""

from __future__ import annotations

import numpy as np

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from bench.harness.errors import BenchError

TOLERANCE = 1e-4
CHECKED_ROWS = 4  # from either end of the batch, against float64


def checked_rows(case: Case) -> list[int]:
    """Rows of the batch that are held to the float64 loop; the others are held to another implementation's."""
    B = case.batch
    return sorted({*range(min(CHECKED_ROWS, B)), *range(max(0, B - CHECKED_ROWS), B)})


def _compare(what: str, received: F32, expected: F32, scale: F32) -> None:
    if received.shape != expected.shape:
        raise BenchError(f"{what}: shape {received.shape}, expected {expected.shape}")
    difference = np.abs(received - expected)
    if not bool((difference <= TOLERANCE * np.maximum(1, scale)).all()):  # a NaN is not within the tolerance
        raise BenchError(f"{what}: wrong answer, off by {np.max(difference):.2e} (allowed: {TOLERANCE:g})")


def check_output(what: str, received: F32, expected: F32) -> None:
    """Element by element, |difference| <= 1e-4 * max(1, |expected|)."""
    _compare(what, received, expected, np.abs(expected))


def check_gradients(what: str, received: Arrays, expected: Arrays) -> None:
    """Does as `check_output`, with the largest element of each array for |expected|: a gradient sums T*B terms."""
    if received.keys() != expected.keys():
        raise BenchError(f"{what}: gradients of {sorted(received)}, expected {sorted(expected)}")
    for name, array in expected.items():
        _compare(f"{what}: {name}", received[name], array, np.max(np.abs(array), keepdims=True))
