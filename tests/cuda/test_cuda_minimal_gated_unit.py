"""A cell that stands outside the package runs on a device, too: step by step, as it has no persistent kernels."""

from typing import Any

import numpy as np
import pytest
from cuda_compiler import REASON

if REASON:
    pytest.skip(f"no CUDA compiler: {REASON}", allow_module_level=True)

from helpers import GRADIENTS, LAYERS, OUTPUTS, Backend, Launches, assert_gradients_near, assert_near
from minimal_gated_unit import MguProblem, registered
from minimal_gated_unit_cuda import registered_on_cuda
from problems import EMULATED_SIZES, every_dtype


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch)
    registered_on_cuda(monkeypatch)


def check(p: MguProblem, backend: Backend, outputs: float, gradients: float) -> None:
    assert_near(p.run(backend), p.expected(), outputs)
    assert_gradients_near(p.gradients(backend), p.expected_gradients(), gradients)


@every_dtype
@pytest.mark.parametrize("sizes", [*EMULATED_SIZES, (3, 9, 5, 32)], ids=str)
def test_sizes(dtype: str, sizes: tuple[int, int, int, int], device_backend: Backend) -> None:
    check(MguProblem(*sizes, dtype=dtype), device_backend, OUTPUTS[dtype], GRADIENTS[dtype])


@every_dtype
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("lengths", [None, [2, 0, 5, 1]], ids=["full", "ragged"])
def test_options(dtype: str, options: dict[str, Any], lengths: list[int] | None, device_backend: Backend) -> None:
    check(MguProblem(5, 4, 3, 8, dtype=dtype, lengths=lengths, **options), device_backend, OUTPUTS[dtype], GRADIENTS[dtype])


@pytest.mark.parametrize(("form", "error"), [({"fast_math": True}, 5e-3), ({"dtype": "float16"}, 2e-3)], ids=["fast", "half"])
@pytest.mark.parametrize("lengths", [None, [2, 0, 5, 1]], ids=["full", "ragged"])
def test_forms(form: dict[str, Any], error: float, lengths: list[int] | None, device_backend: Backend) -> None:
    check(MguProblem(5, 4, 3, 8, lengths=lengths, bidirectional=True, **form), device_backend, error, error)


@pytest.mark.parametrize("B", [1, 9])
def test_streams(B: int, device_backend: Backend) -> None:
    p = MguProblem(5, B, 3, 8, num_layers=2)
    stream = p.layer.stream(B, device_backend.array(p.state))
    y = np.stack([device_backend.numpy(stream.step(device_backend.array(x))) for x in p.x])
    assert_near((y, device_backend.numpy(stream.state)), p.expected(), OUTPUTS["float32"])
    with pytest.raises(NotImplementedError, match="a cell with a kernel for a step"):
        stream.capture()


def test_two_products_and_two_kernels_a_step(device_backend: Backend, launches: Launches) -> None:
    p = MguProblem(6, 2, 3, 8)
    assert "stepwise, as no persistent kernel runs mgu" in str(p.layer.plan(device_backend.array(p.x)))
    p.run(device_backend)
    assert launches.total() == 1 + 4 * 6
    p.gradients(device_backend)
    assert not launches.named("persistent")
    of_steps = [name for name in launches if name.startswith("mgu_")]
    assert sum(launches[name] for name in of_steps) == 6 * 2 * 3  # forward passes and a backward pass
