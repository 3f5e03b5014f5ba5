"""Helpers that the tests of converters share."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

OUTPUTS = {"float32": 1e-5, "float64": 1e-10}  # what issue and README promise of converters

few = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
sizes = st.integers(1, 9)
dtypes = st.sampled_from(["float32", "float64"])


def near(got: Any, wanted: Any, dtype: str) -> None:
    wanted = np.asarray(wanted)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max(initial=0) <= OUTPUTS[dtype] * max(1, np.abs(wanted).max(initial=0))


def refused(call: Callable[[], Any], match: str, error: type[Exception] | tuple[type[Exception], ...] = ValueError) -> None:
    """With a clear message, and without a large allocation."""
    tracemalloc.start()
    try:
        with pytest.raises(error, match=match) as raised:
            call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(raised.value)) < 600
    assert peak < 32 << 20
