"""What a call costs on a GPU beside arithmetic: launches, bytes moved, uploads, as the emulated device counts them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import BACKENDS, Problem, emulated_device, leaves, new_layer
from reference import packed, parts
from reference_cells import CELLS

from ptx_emulator.compile import why_not

if why := why_not():
    pytest.skip(why, allow_module_level=True)

EMULATED = BACKENDS["cuda-emulated"]
LAUNCHES: dict[str, Callable[[int], int]] = {
    "lstm": lambda T: 1 + 2 * T,
    "gru_after": lambda T: 1 + 2 * T,
    "gru": lambda T: 1 + 4 * T,
}
every_cell = pytest.mark.parametrize("cell", CELLS)


def launches(p: Problem) -> int:
    emulated_device().reset()
    p.run(EMULATED)
    return sum(emulated_device().launches.values())


@pytest.mark.usefixtures("stepwise")
@every_cell
@pytest.mark.parametrize("lengths", [None, [3, 0]], ids=["full", "ragged"])
@pytest.mark.parametrize("T", [1, 2, 7])
def test_stepwise_launches(cell: str, T: int, lengths: list[int] | None) -> None:
    lengths = None if lengths is None else [min(n, T) for n in lengths]
    expected = LAUNCHES[cell](T)
    assert launches(Problem(cell, T, 2, 3, 5, lengths=lengths)) == expected
    assert launches(Problem(cell, T, 2, 3, 5, lengths=lengths, bidirectional=True)) == 2 * expected
    assert launches(Problem(cell, T, 2, 3, 5, lengths=lengths, num_layers=3)) == 3 * expected


@every_cell
def test_persistent_launches(cell: str) -> None:
    """A product for all of W_x x and one kernel, however long the sequence."""
    for T in (1, 9):
        assert launches(Problem(cell, T, 2, 3, 8)) == 2


@pytest.mark.usefixtures("stepwise")
@every_cell
def test_backward_launches(cell: str) -> None:
    """At most two a step, four for a reset-before GRU, and a number that does not depend on T for all else."""

    def count(T: int) -> int:
        p = Problem(cell, T, 2, 3, 5)
        state, dstate = (packed([EMULATED.array(s) for s in parts(both)]) for both in (p.state, p.dstate))
        _, vjp = p.layer.vjp(EMULATED.array(p.x), state)
        dy = EMULATED.array(p.dy)
        emulated_device().reset()
        vjp(dy, dstate)
        return sum(emulated_device().launches.values())

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


@pytest.mark.usefixtures("stepwise")
@every_cell
def test_bytes_moved(cell: str) -> None:
    """At most 5 % over the fewest. The biases, one row for the whole batch, come from the cache after the first row: as
    bytes between memory and chip they count once."""
    T, B, H = 5, 24, 32
    p = Problem(cell, T, B, 4, H)
    device = emulated_device()
    device.reset()
    p.gradients(EMULATED)
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


@every_cell
def test_weights_are_uploaded_once(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To each device that asks, until `load_params` changes them."""
    from gpurnn_kernels.cuda import engine
    from ptx_emulator.device import EmulatedDevice

    uploads: list[Any] = []
    upload = engine.upload
    monkeypatch.setattr(engine, "upload", lambda device, *rest: uploads.append(device) or upload(device, *rest))
    p = Problem(cell, 2, 2, 3, 5, num_layers=2)
    first, other = emulated_device(), EmulatedDevice("A100")
    for device in (first, other):
        for _ in range(2):
            y, _ = p.layer(device.upload(p.x))
            assert y.home is device
            p.layer.vjp(device.upload(p.x))[1](None)
    assert uploads == [first, first, other, other]
    p.layer.load_params(p.params)
    for _ in range(2):
        p.layer(first.upload(p.x))
    assert uploads == [first, first, other, other, first, first]


@every_cell
def test_a_step_of_a_stream_is_one_launch(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset-before GRU: two. Nothing is allocated and no product is taken, so that a graph can capture it."""
    p = Problem(cell, 4, 3, 5, 19, num_layers=2)
    stream = p.layer.stream(3, packed([EMULATED.array(s) for s in parts(p.state)]))
    device = emulated_device()
    x, out = EMULATED.array(p.x), device.empty((3, 19), np.dtype("float32"))
    stream.step(x[0], out)
    device.reset()
    for name in ("empty", "zeros", "upload", "multiply"):
        monkeypatch.setattr(device, name, lambda *_, **__: pytest.fail("allocated, or multiplied"))
    stream.step(x[1], out)
    assert sum(device.launches.values()) == 2 * (2 if cell == "gru" else 1)


def test_many_rows_of_a_stream_go_through_products() -> None:
    p = Problem("lstm", 3, 9, 4, 8)
    stream = p.layer.stream(9, packed([EMULATED.array(s) for s in parts(p.state)]))
    y = np.stack([np.array(stream.step(EMULATED.array(x))) for x in p.x])
    expected = p.expected()
    assert max(np.abs(a - e).max() for a, e in zip(leaves((y, stream.state)), leaves(expected), strict=True)) < 2e-6


def test_plans_say_what_runs() -> None:
    x = EMULATED.array(np.zeros((2, 3, 4), np.float32))
    small, wide = new_layer("lstm", 4, 8), new_layer("lstm", 4, 8, dtype="float64")
    assert "persistent" in str(small.plan(x))
    assert "H100" in str(small.plan(x))
    assert "stepwise" in str(wide.plan(EMULATED.array(np.zeros((2, 3, 4)))))
    assert "float64" in str(wide.plan(EMULATED.array(np.zeros((2, 3, 4)))))
