"""Layers, cells and streams over arrays on a device: what stays there, and what is refused."""

import re
from typing import Any

import numpy as np
import pytest
from helpers import OUTPUTS, Backend, Problem, assert_near, assert_same_bits, device_of, leaves, new_layer
from reference import packed, parts
from reference_cells import CELLS

import gpurnn

every_cell = pytest.mark.parametrize("cell", CELLS)
F32 = np.float32


def state_on_device(p: Problem, backend: Backend) -> Any:
    return packed([backend.array(s) for s in parts(p.state)])


def on(backend: Backend) -> str:
    """A pattern for messages that ask for an array on the backend's device."""
    return re.escape(f"expected an array on {backend.device.limits.name}")


@pytest.mark.usefixtures("stepwise")
@every_cell
def test_results_stay_on_the_device_of_x(cell: str, device_backend: Backend) -> None:
    p = Problem(cell, 2, 2, 3, 5, num_layers=2)
    for device in device_backend.devices():
        (y, last), vjp = p.layer.vjp(device.upload(p.x))
        grads = vjp(device.upload(p.dy))
        for a in (
            *leaves(p.layer(device.upload(p.x))),
            y,
            *leaves(last),
            grads.x,
            *leaves(grads.state),
            *grads.params.values(),
        ):
            assert device_of(a) is device


@every_cell
def test_mixtures_are_refused(cell: str, device_backend: Backend) -> None:
    p = Problem(cell)
    x = device_backend.array(p.x)
    for given, state in ((x, p.state), (p.x, state_on_device(p, device_backend))):
        with pytest.raises(TypeError, match=r"expected an? .*array.* like x"):
            p.layer(given, state)
    with pytest.raises(TypeError, match="lengths: expected a NumPy array like x"):
        p.layer(p.x, None, device_backend.array(np.array([1, 2, 3])))
    (_, _), vjp = p.layer.vjp(x)
    with pytest.raises(TypeError, match=f"dy: {on(device_backend)}"):
        vjp(p.dy)
    y, _ = p.layer(x, None, [5, 0, 3])  # lengths that NumPy holds are small, and checked
    assert device_of(y) is device_backend.device
    with pytest.raises(ValueError, match="lengths"):
        p.layer(x, None, [5, 0, 6])


@every_cell
def test_a_state_on_another_device_is_refused(cell: str, device_backend: Backend, another_device: Any) -> None:
    p = Problem(cell)
    elsewhere = packed([another_device.upload(s) for s in parts(p.state)])
    with pytest.raises(TypeError, match=f"state.*{on(device_backend)} like x"):
        p.layer(device_backend.array(p.x), elsewhere)


def test_arrays_off_element_boundaries_are_refused(device_backend: Backend) -> None:
    layer = gpurnn.LSTM(3, 4)
    memory = device_backend.device.zeros((25,), np.dtype(np.uint8))
    with pytest.raises(ValueError, match="boundaries"):
        layer(memory[1:].view(F32).reshape(2, 1, 3))


@pytest.mark.parametrize("options", [{"proj_size": 2}, {"peepholes": True}, {"clip": 1.0}], ids=str)
def test_options_that_cuda_does_not_have(options: dict[str, Any], device_backend: Backend) -> None:
    layer = gpurnn.LSTM(3, 4, **options)
    with pytest.raises(NotImplementedError, match=next(iter(options))):
        layer(device_backend.array(np.zeros((2, 1, 3), F32)))


@pytest.mark.usefixtures("stepwise")
def test_coupled_gates(device_backend: Backend) -> None:
    p = Problem("lstm", 4, 2, 3, 5)
    layer = gpurnn.LSTM(3, 5, input_forget=True, seed=0)
    state = tuple(p.state)
    host, there = layer(p.x, state), layer(device_backend.array(p.x), state_on_device(p, device_backend))
    assert_near([device_backend.numpy(a) for a in leaves(there)], leaves(host), OUTPUTS["float32"])
    on_host, on_device = (
        make(x)[1](dy).params
        for make, x, dy in ((layer.vjp, p.x, p.dy), (layer.vjp, device_backend.array(p.x), device_backend.array(p.dy)))
    )
    for name, a in on_host.items():
        np.testing.assert_allclose(device_backend.numpy(on_device[name]), a, rtol=1e-4, atol=1e-5)


def test_tf32_is_asked_for(device_backend: Backend) -> None:
    if device_backend.device.limits.compute_capability < (8, 0):
        pytest.skip("this GPU has no tf32")
    p = Problem("lstm", 3, 2, 30, 8, precision="tf32")
    near = Problem("lstm", 3, 2, 30, 8)
    y, _ = p.run(device_backend)
    expected, _ = near.expected()
    assert_near(y, expected, 5e-3)
    assert np.abs(y - expected).max() > 2e-5
    assert_same_bits(p.run(), near.run())
    for dtype, precision, error in (
        ("float64", "tf32", ValueError),
        ("float32", "int4", ValueError),
        ("float32", 1, TypeError),
    ):
        with pytest.raises(error, match="precision"):
            gpurnn.GRU(3, 4, dtype=dtype, precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precisions_of_the_cpu(precision: str, device_backend: Backend) -> None:
    p = Problem("gru_after", 3, 2, 4, 5, precision=precision)
    with pytest.raises(NotImplementedError, match=f"precision '{precision}' is not built on CUDA: call the layer with NumPy"):
        p.run(device_backend)


@pytest.mark.usefixtures("stepwise")
@every_cell
def test_cells(cell: str, device_backend: Backend) -> None:
    p = Problem(cell, 1, 3, 4, 6)
    names = ["W_x", "W_h", "b", *(["b_hn"] if cell == "gru_after" else [])]
    function = gpurnn.lstm_cell if cell == "lstm" else gpurnn.gru_cell
    given = [p.x[0], *(s[0] for s in parts(p.state)), *(p.params[f"layers.0.{name}"] for name in names)]
    found = leaves(function(*(device_backend.array(np.ascontiguousarray(a)) for a in given)))
    assert_near([device_backend.numpy(a) for a in found], leaves(function(*given)), OUTPUTS["float32"])


@every_cell
@pytest.mark.parametrize("dtype", OUTPUTS)
@pytest.mark.parametrize("B", [1, 3, 9])
def test_streams(cell: str, dtype: str, B: int, device_backend: Backend) -> None:
    p = Problem(cell, 5, B, 5, 19, dtype=dtype, num_layers=2)
    stream = p.layer.stream(B, state_on_device(p, device_backend))
    y = np.stack([device_backend.numpy(stream.step(device_backend.array(x_t))) for x_t in p.x])
    state = packed([device_backend.numpy(s) for s in parts(stream.state)])
    assert_near((y, state), p.expected(), OUTPUTS[dtype])


@every_cell
def test_a_stream_goes_where_its_first_array_is(cell: str, device_backend: Backend) -> None:
    p = Problem(cell, 3, 2, 4, 6)
    stream = p.layer.stream(2)
    x = device_backend.array(p.x)
    first = stream.step(x[0])
    assert device_of(first) is device_backend.device
    with pytest.raises(TypeError, match=f"x_t: {on(device_backend)}"):
        stream.step(p.x[1])
    with pytest.raises(TypeError, match=f"out: {on(device_backend)}"):
        stream.step(x[1], np.zeros((2, 6), F32))
    with pytest.raises(TypeError, match="state"):
        stream.state = p.state
    saved = stream.state
    second = device_backend.numpy(stream.step(x[1]))
    stream.state = saved
    assert_same_bits(device_backend.numpy(stream.step(x[1])), second)
    stream.reset()
    assert_same_bits(device_backend.numpy(stream.step(x[0])), device_backend.numpy(first))
    kept = [device_backend.numpy(s) for s in leaves(stream.state)]
    for rows in ([1], [False, True]):
        stream.reset(rows)
        for before, after in zip(kept, leaves(stream.state), strict=True):
            assert_same_bits(device_backend.numpy(after)[:, 0], before[:, 0])
            assert not np.any(device_backend.numpy(after)[:, 1])
    host = p.layer.stream(2)
    host.step(p.x[0])
    with pytest.raises(TypeError, match="x_t: expected a NumPy array"):
        host.step(x[1])
    with pytest.raises(ValueError, match="CPU"):
        host.capture()


@every_cell
def test_captured_steps(cell: str, device_backend: Backend) -> None:
    p = Problem(cell, 5, 2, 4, 6, num_layers=2)
    plain, stream = (p.layer.stream(2, state_on_device(p, device_backend)) for _ in range(2))
    captured = stream.capture()
    for t, x_t in enumerate(p.x):
        expected = device_backend.numpy(plain.step(device_backend.array(x_t)))
        if t == 2:  # plain steps and recorded ones take turns as they like
            assert_same_bits(device_backend.numpy(stream.step(device_backend.array(x_t))), expected)
            continue
        captured.x[...] = device_backend.array(x_t)
        captured.replay()
        assert_same_bits(device_backend.numpy(captured.out), expected)
    for a, b in zip(leaves(stream.state), leaves(plain.state), strict=True):
        assert_same_bits(device_backend.numpy(a), device_backend.numpy(b))
    many = packed([device_backend.array(np.zeros((1, 9, 4), F32)) for _ in parts(p.state)])
    with pytest.raises(NotImplementedError, match="8 rows"):
        new_layer(cell, 3, 4).stream(9, many).capture()
