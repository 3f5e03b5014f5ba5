"""A call's cost on a GPU beside arithmetic: launches and uploads; and the bytes moved, as the emulated device counts them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_compiler import needs_compiler
from helpers import BACKENDS, OUTPUTS, Backend, Launches, Problem, assert_near, device_of, new_layer
from reference import packed, parts
from reference_cells import CELLS

LAUNCHES: dict[str, Callable[[int], int]] = {
    "lstm": lambda T: 1 + 2 * T,
    "gru_after": lambda T: 1 + 2 * T,
    "gru": lambda T: 1 + 4 * T,
}
every_cell = pytest.mark.parametrize("cell", CELLS)


def state_on(backend: Backend, state: Any) -> Any:
    return packed([backend.array(s) for s in parts(state)])


@pytest.mark.usefixtures("stepwise")
@every_cell
@pytest.mark.parametrize("lengths", [None, [3, 0]], ids=["full", "ragged"])
@pytest.mark.parametrize("T", [1, 2, 7])
def test_stepwise_launches(cell: str, T: int, lengths: list[int] | None, device_backend: Backend, launches: Launches) -> None:
    lengths = None if lengths is None else [min(n, T) for n in lengths]
    expected = LAUNCHES[cell](T)
    for options, times in (({}, 1), ({"bidirectional": True}, 2), ({"num_layers": 3}, 3)):
        launches.clear()
        Problem(cell, T, 2, 3, 5, lengths=lengths, **options).run(device_backend)
        assert launches.total() == times * expected


@every_cell
def test_persistent_launches(cell: str, device_backend: Backend, launches: Launches) -> None:
    """A product for all of W_x x and one kernel, however long the sequence."""
    for T in (1, 9):
        launches.clear()
        Problem(cell, T, 2, 3, 8).run(device_backend)
        assert launches.total() == 2
        assert len(launches.named("persistent")) == 1


@needs_compiler
@pytest.mark.usefixtures("stepwise")
@every_cell
def test_the_emulated_device_counts_the_same(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BACKENDS["cuda-emulated"]
    launches = Launches(backend.device, monkeypatch)
    backend.device.reset()
    Problem(cell, 4, 2, 3, 5, num_layers=2).gradients(backend)
    assert launches == backend.device.launches


@pytest.mark.usefixtures("stepwise")
@every_cell
def test_backward_launches(cell: str, device_backend: Backend, launches: Launches) -> None:
    """At most two a step, four for a reset-before GRU, and a number that does not depend on T for all else."""

    def count(T: int) -> int:
        p = Problem(cell, T, 2, 3, 5)
        state, dstate = (state_on(device_backend, both) for both in (p.state, p.dstate))
        _, vjp = p.layer.vjp(device_backend.array(p.x), state)
        dy = device_backend.array(p.dy)
        launches.clear()
        vjp(dy, dstate)
        return launches.total()

    assert count(12) - count(5) == 7 * (4 if cell == "gru" else 2)


# floats a unit of a row that a kernel has to read and write
FEWEST = {
    "lstm_forward": 4 + 1 + 2,  # gates, c | c, h
    "gru_after_forward": 6 + 1 + 1,  # both products, h | h
    "gru_reset_forward": 1 + 1 + 1,  # r, h | r * h
    "gru_before_forward": 2 + 1 + 1,  # z, n, h | h
    "lstm_backward": 4 + 2 + 1 + 2 + 4 + 1,  # gates, c and c before, dy, dh, dc | gates, dc
    "gru_after_backward": 3 + 1 + 1 + 1 + 1 + 4 + 1,  # gates, q, h, dy, dh | z r q n, dh
    "gru_before_backward": 2 + 1 + 1 + 1 + 2 + 1,  # z, n, h, dy, dh | z, n, dh
    "gru_reset_backward": 1 + 1 + 1 + 1 + 1 + 1,  # r, h, d(r h), dh | r, dh
}
SAVED = {"lstm_forward": 4, "gru_after_forward": 4, "gru_reset_forward": 1, "gru_before_forward": 2}
LEFT = {"lstm_forward": 2, "gru_after_forward": 1, "gru_before_forward": 1}  # the final state
BIASES = {"lstm_forward": 4, "gru_after_forward": 4, "gru_reset_forward": 1, "gru_before_forward": 2}


@needs_compiler
@pytest.mark.usefixtures("stepwise")
@every_cell
def test_bytes_moved(cell: str) -> None:
    """At most 5 % over the fewest. The biases, one row for the whole batch, come from the cache after the first row: as
    bytes between memory and chip they count once."""
    T, B, H = 5, 24, 32
    p = Problem(cell, T, B, 4, H)
    backend = BACKENDS["cuda-emulated"]
    device = backend.device
    device.reset()
    p.gradients(backend)
    seen = set()
    for name, count in device.launches.items():
        kind = name.partition("_float")[0]
        if kind not in FEWEST:
            continue
        seen.add(kind)
        moved = (device.bytes[name, "load"] + device.bytes[name, "store"]) / count / 4
        final = LEFT.get(kind, 0) if "_final" in name else 0
        again = BIASES.get(kind, 0) * (B - 1) * H
        assert moved - again <= 1.05 * (FEWEST[kind] + SAVED.get(kind, 0) + final) * B * H, name
        assert moved >= FEWEST[kind] * B * H, name
    assert len(seen) == (2 if cell != "gru" else 4)


@pytest.mark.usefixtures("stepwise")
@every_cell
def test_weights_are_uploaded_once(cell: str, device_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """To each device that asks, until `load_params` changes them."""
    from gpurnn_kernels.cuda import engine

    uploads: list[Any] = []
    upload = engine.upload
    monkeypatch.setattr(engine, "upload", lambda device, *rest: uploads.append(device) or upload(device, *rest))
    p = Problem(cell, 2, 2, 3, 5, num_layers=2)
    devices = device_backend.devices()
    for device in devices:
        for _ in range(2):
            y, _ = p.layer(device.upload(p.x))
            assert device_of(y) is device
            p.layer.vjp(device.upload(p.x))[1](None)
    assert uploads == [device for device in devices for _ in range(2)]  # once a layer
    uploads.clear()
    p.layer.load_params(p.params)
    for _ in range(2):
        p.layer(devices[0].upload(p.x))
    assert uploads == [devices[0]] * 2


@every_cell
def test_a_step_of_a_stream_is_one_launch(
    cell: str, device_backend: Backend, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reset-before GRU: two. Nothing is allocated and no product is taken, so that a graph can capture it."""
    p = Problem(cell, 4, 3, 5, 19, num_layers=2)
    stream = p.layer.stream(3, state_on(device_backend, p.state))
    device = device_backend.device
    x, out = device_backend.array(p.x), device.empty((3, 19), np.dtype("float32"))
    stream.step(x[0], out)
    launches.clear()
    for name in ("empty", "zeros", "upload", "multiply"):
        monkeypatch.setattr(device, name, lambda *_, **__: pytest.fail("allocated, or multiplied"))
    stream.step(x[1], out)
    assert launches.total() == 2 * (2 if cell == "gru" else 1)


def test_many_rows_of_a_stream_go_through_products(device_backend: Backend, launches: Launches) -> None:
    p = Problem("lstm", 3, 9, 4, 8)
    stream = p.layer.stream(9, state_on(device_backend, p.state))
    y = np.stack([device_backend.numpy(stream.step(device_backend.array(x))) for x in p.x])
    state = packed([device_backend.numpy(s) for s in parts(stream.state)])
    assert_near((y, state), p.expected(), OUTPUTS["float32"])
    assert launches["multiply"] >= 3


def test_plans_say_what_runs(device_backend: Backend) -> None:
    x = device_backend.array(np.zeros((2, 3, 4), np.float32))
    doubled = device_backend.array(np.zeros((2, 3, 4)))
    small, wide = new_layer("lstm", 4, 8), new_layer("lstm", 4, 8, dtype="float64")
    assert "persistent" in str(small.plan(x))
    assert device_backend.device.limits.name in str(small.plan(x))
    assert "stepwise" in str(wide.plan(doubled))
    assert "float64" in str(wide.plan(doubled))
