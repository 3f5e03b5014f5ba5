"""A cell that stands outside the package runs as the package's own do: values, gradients and promises."""

from typing import Any

import numpy as np
import pytest
from helpers import (
    GRADIENTS,
    LAYERS,
    OUTPUTS,
    assert_gradients_near,
    assert_near,
    assert_same_bits,
    row_of,
)
from minimal_gated_unit import MguProblem, registered
from problems import SIZES, every_dtype

import gpurnn
from gpurnn_kernels.cpu.codegen.cache import KernelCache


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch)


def check(p: MguProblem, dtype: str) -> None:
    assert_near(p.run(), p.expected(), OUTPUTS[dtype])
    assert_gradients_near(p.gradients(), p.expected_gradients(), GRADIENTS[dtype])


@every_dtype
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(dtype: str, sizes: tuple[int, int, int, int]) -> None:
    check(MguProblem(*sizes, dtype=dtype), dtype)


@every_dtype
@pytest.mark.parametrize("options", [*LAYERS.values(), {"clip": 0.4}], ids=[*LAYERS, "clip"])
@pytest.mark.parametrize("lengths", [None, [2, 0, 7, 5, 7, 1]], ids=["full", "ragged"])
def test_options(dtype: str, options: dict[str, Any], lengths: list[int] | None) -> None:
    check(MguProblem(7, 6, 9, 21, dtype=dtype, lengths=lengths, **options), dtype)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("B", [1, 3, 13])
def test_bits_do_not_depend_on_batch_threads_or_streaming(B: int, threads: int) -> None:
    p = MguProblem(6, B, 13, 150, bidirectional=False, num_layers=2)
    gpurnn.set_num_threads(1)
    y, state = p.run()
    gradients = p.gradients()
    gpurnn.set_num_threads(threads)
    assert_same_bits((p.run(), p.gradients()), ((y, state), gradients))
    first = slice(0, 1)
    assert_same_bits(p.layer(p.x[:, first], row_of(p.state, first)), (y[:, first], row_of(state, first)))
    stream = p.layer.stream(B, p.state)
    assert_same_bits((np.stack([stream.step(x_t) for x_t in p.x]), stream.state), (y, state))


def test_kernels_are_not_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest of the package does not tell when a cell outside it changes."""
    from gpurnn_kernels.cpu.codegen import compile as compiling

    made: list[str] = []
    plain = KernelCache.__init__
    monkeypatch.setattr(
        KernelCache, "__init__", lambda self, f, *more: (made.append(f.__qualname__), plain(self, f, *more))[1]
    )
    monkeypatch.setattr(compiling, "_addresses", {})
    MguProblem().run()
    assert made
    assert not [name for name in made if name.startswith("mgu")]
