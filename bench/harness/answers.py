"""Checks that the implementations agree, before any time is reported."""

from __future__ import annotations

import math

import numpy as np

from bench.harness.cases import FLOAT32, Case
from bench.harness.data import F32, Arrays
from bench.harness.errors import BenchError

TOLERANCE = 1e-4
# a row's rms error over the rms of all outputs: three times what the implementations err, half of what wrong weights make
ROUNDED = {"bf16": 0.03, "int8": 0.1}
CHECKED_ROWS = 4  # from either end of the batch, against float64


def checked_rows(case: Case) -> list[int]:
    """Rows of the batch that are held to the float64 loop; the others are held to another implementation's."""
    B = case.batch
    return sorted({*range(min(CHECKED_ROWS, B)), *range(max(0, B - CHECKED_ROWS), B)})


def _same_shape(what: str, received: F32, expected: F32) -> None:
    if received.shape != expected.shape:
        raise BenchError(f"{what}: shape {received.shape}, expected {expected.shape}")


def _compare(what: str, received: F32, expected: F32, scale: F32) -> None:
    _same_shape(what, received, expected)
    difference = np.abs(received - expected)
    if not bool((difference <= TOLERANCE * np.maximum(1, scale)).all()):  # a NaN is not within the tolerance
        raise BenchError(f"{what}: wrong answer, off by {np.max(difference):.2e} (allowed: {TOLERANCE:g})")


def check_output(what: str, received: F32, expected: F32, precision: str = FLOAT32) -> None:
    """Element by element, |difference| <= 1e-4 * max(1, |expected|); in a reduced precision, the rms of each row of the batch
    is held to a part of that of all that is expected."""
    if precision == FLOAT32:
        _compare(what, received, expected, np.abs(expected))
        return
    _same_shape(what, received, expected)
    allowed = ROUNDED[precision] * rms(expected)
    worst = max((rms(received[:, row] - expected[:, row]) for row in range(expected.shape[1])), key=_nan_first)
    if not worst <= allowed:
        raise BenchError(f"{what}: wrong answer, a row is off by {worst:.2e} rms (allowed in {precision}: {allowed:.2e})")


def rms(values: F32) -> float:
    """The root of the mean square."""
    return math.sqrt(np.mean(np.square(values, dtype=np.float64)))


def _nan_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def check_gradients(what: str, received: Arrays, expected: Arrays) -> None:
    """Does as `check_output`, with the largest element of each array for |expected|: a gradient sums T*B terms."""
    if received.keys() != expected.keys():
        raise BenchError(f"{what}: gradients of {sorted(received)}, expected {sorted(expected)}")
    for name, array in expected.items():
        _compare(f"{what}: {name}", received[name], array, np.max(np.abs(array), keepdims=True))
