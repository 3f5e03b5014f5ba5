"""Streams: their state, what they allocate, and that errors leave them as they were. (test_promises.py compares bits.)"""

import copy
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import OUTPUTS, Backend, Problem, assert_near, assert_same_bits, leaves, new_layer
from reference import packed, parts
from reference_cells import CELLS

import gpurnn

pytestmark = pytest.mark.usefixtures("together")
every_cell = pytest.mark.parametrize("cell", CELLS)


def zeros(p: Problem) -> Any:
    return packed([np.zeros_like(s) for s in parts(p.state)])


@every_cell
@pytest.mark.parametrize("dtype", OUTPUTS)
@pytest.mark.parametrize("layers", [1, 3])
def test_against_the_reference(cell: str, dtype: str, layers: int) -> None:
    p = Problem(cell, 7, 3, 5, 19, dtype=dtype, num_layers=layers)
    stream = p.layer.stream(3, p.state)
    y = np.stack([stream.step(x_t) for x_t in p.x])
    assert_near((y, stream.state), p.expected(), OUTPUTS[dtype])


@every_cell
def test_state_is_a_copy_and_can_be_set(cell: str) -> None:
    p = Problem(cell, num_layers=2)
    stream = p.layer.stream(3)
    assert_same_bits(stream.state, zeros(p))
    first = stream.step(p.x[0])
    saved = stream.state
    second = stream.step(p.x[1])
    for s in leaves(stream.state):
        s.fill(9)
    stream.state = saved
    assert_same_bits(stream.step(p.x[1]), second)
    stream.state = None
    assert_same_bits(stream.step(p.x[0]), first)
    given = packed([s.copy() for s in parts(p.state)])
    stream.state = given
    for s in leaves(given):
        s.fill(9)
    assert_same_bits(stream.state, p.state)


@every_cell
@pytest.mark.parametrize(
    ("rows", "gone"),
    [
        (None, [0, 1, 2, 3]),
        ([], []),
        (2, [2]),
        ([0, 3], [0, 3]),
        ([-1, 1, 1], [1, 3]),
        (np.array([3], np.uint8), [3]),
        ([True, False, True, False], [0, 2]),
        (np.zeros(4, bool), []),
    ],
)
def test_reset(cell: str, rows: Any, gone: list[int]) -> None:
    p = Problem(cell, 2, 4, num_layers=2)
    stream = p.layer.stream(4, p.state)
    stream.reset(rows)
    expected = packed([s.copy() for s in parts(p.state)])
    for s in leaves(expected):
        s[:, gone] = 0
    assert_same_bits(stream.state, expected)
    y, _ = p.layer(p.x[:1], expected)
    assert_same_bits(stream.step(p.x[0]), y[0])


@every_cell
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_into_out_allocates_nothing(cell: str, threads: int) -> None:
    gpurnn.set_num_threads(threads)
    p = Problem(cell, 2, 16, 40, 64, num_layers=2)
    stream = p.layer.stream(16)
    out = np.empty((16, 64), np.float32)
    x = p.x[0]

    def steps(count: int) -> None:
        for _ in range(count):
            stream.step(x, out)

    steps(10)
    blocks = sys.getallocatedblocks()
    steps(500)
    assert sys.getallocatedblocks() - blocks < 50
    tracemalloc.start()
    try:
        steps(10)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        steps(100)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024
    assert peak - before < min(x.nbytes, out.nbytes)


@every_cell
def test_inputs_of_any_strides(cell: str) -> None:
    p = Problem(cell, 1, 4, 6, 9)
    expected = p.layer.stream(4, p.state).step(p.x[0])
    wide = np.full((8, 12), np.nan, np.float32)
    wide[::2, ::2] = p.x[0]
    misaligned = np.zeros(p.x[0].nbytes + 1, np.uint8)[1:].view(np.float32).reshape(4, 6)
    misaligned[...] = p.x[0]
    read_only = p.x[0].copy()
    read_only.flags.writeable = False
    for x_t in (wide[::2, ::2], np.asfortranarray(p.x[0]), p.x[0][::-1].copy()[::-1], misaligned, read_only):
        assert_same_bits(p.layer.stream(4, p.state).step(x_t), expected)


F32, F64 = np.float32, np.float64
BAD_STEPS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], tuple[Any, Any]], type[Exception]]] = {
    "x wrong rank": (lambda x, out: (x[None], None), ValueError),
    "x without a batch": (lambda x, out: (x[0], None), ValueError),
    "x wrong I": (lambda x, out: (x[:, 1:], None), ValueError),
    "x wrong B": (lambda x, out: (x[1:], None), ValueError),
    "x wrong dtype": (lambda x, out: (x.astype(F64), None), TypeError),
    "x byte-swapped": (lambda x, out: (x.astype(">f4"), None), TypeError),
    "x a list": (lambda x, out: (x.tolist(), None), TypeError),
    "x objects": (lambda x, out: (x.astype(object), None), TypeError),
    "x nothing": (lambda x, out: (None, None), TypeError),
    "out wrong shape": (lambda x, out: (x, out[1:]), ValueError),
    "out wrong dtype": (lambda x, out: (x, out.astype(F64)), TypeError),
    "out not contiguous": (lambda x, out: (x, np.asfortranarray(out)), ValueError),
    "out a list": (lambda x, out: (x, out.tolist()), TypeError),
    "out read-only": (lambda x, out: (x, np.broadcast_to(out[:1], out.shape)), ValueError),
}


@every_cell
@pytest.mark.parametrize("bad", BAD_STEPS)
def test_errors_leave_the_state_as_it_was(cell: str, bad: str) -> None:
    p = Problem(cell, 1, 3, 6, 9)
    stream = p.layer.stream(3, p.state)
    make, error = BAD_STEPS[bad]
    out = np.full((3, 9), 7, F32)
    with pytest.raises(error, match="expected"):
        stream.step(*make(p.x[0], out))
    assert np.all(out == 7)
    assert_same_bits(stream.state, p.state)


@every_cell
def test_bad_states_and_rows(cell: str) -> None:
    p = Problem(cell, 1, 3, 6, 9)
    stream = p.layer.stream(3, p.state)
    h = leaves(p.state)[0]
    pair = isinstance(p.state, tuple)
    wrong = [h[:, 1:], h[..., 1:], h[0], h.astype(F64), h.tolist(), h.astype(object), 0]
    for value in wrong:
        with pytest.raises((ValueError, TypeError), match="expected"):
            stream.state = (h, value) if pair else value
        assert_same_bits(stream.state, p.state)
    with pytest.raises(TypeError, match=r"pair|array"):
        stream.state = h if pair else (h, h)
    bad_rows: list[tuple[Any, type[Exception]]] = [
        (3, ValueError),
        ([0, -4], ValueError),
        ([True, False], ValueError),
        ([0.0, 1.0], TypeError),
        ("all", TypeError),
        (np.array([0, None]), TypeError),
        (slice(0, 1), TypeError),
    ]
    for rows, error in bad_rows:
        with pytest.raises(error, match="rows: expected"):
            stream.reset(rows)
        assert_same_bits(stream.state, p.state)


@every_cell
def test_what_cannot_be_streamed(cell: str) -> None:
    for options in ({"reverse": True}, {"bidirectional": True}):
        with pytest.raises(ValueError, match="reverse"):
            new_layer(cell, 3, 4, **options).stream()
    layer = new_layer(cell, 3, 4)
    for size in (0, -1):
        with pytest.raises(ValueError, match="batch_size"):
            layer.stream(size)
    for size in (1.5, "1", None, True):
        with pytest.raises(TypeError, match="batch_size"):
            layer.stream(size)


@every_cell
def test_a_stream_keeps_its_parameters(cell: str) -> None:
    p = Problem(cell, 4, 2)
    y, _ = p.layer(p.x)
    stream = p.layer.stream(2)
    for t in range(4):
        assert_same_bits(stream.step(p.x[t]), y[t])
        p.layer.load_params({name: a + 1 for name, a in p.layer.params.items()})


@every_cell
def test_threads_may_change_under_a_stream(cell: str) -> None:
    p = Problem(cell, 9, 40, 13, 70, num_layers=2)
    y, _ = p.layer(p.x)
    stream = p.layer.stream(40)
    for t in range(9):
        gpurnn.set_num_threads((1, 2, 3)[t % 3])
        assert_same_bits(stream.step(p.x[t]), y[t])


@every_cell
@pytest.mark.parametrize("threads", [1, 2])
def test_out_may_overlap_x(cell: str, threads: int) -> None:
    """x is read as if it were copied first, wherever out begins."""
    gpurnn.set_num_threads(threads)
    p = Problem(cell, 2, 16, 40, 40)
    expected = p.layer.stream(16, p.state).step(p.x[0])
    size = p.x[0].size
    memory = np.empty(3 * size, np.float32)
    x = memory[size : 2 * size].reshape(p.x[0].shape)
    for start in (0, 1, size - 1, size, size + 1, size + 40, 2 * size - 1, 2 * size):
        x[...] = p.x[0]
        out = memory[start : start + size].reshape(expected.shape)
        stream = p.layer.stream(16, p.state)
        assert stream.step(x, out=out) is out
        assert_same_bits(out, expected)
        if start in (0, 2 * size):
            assert_same_bits(x, p.x[0])


def test_out_may_overlap_x_on_a_device(backend: Backend) -> None:
    p = Problem("gru_after", 2, 2, 5, 5)
    expected = p.layer.stream(2).step(backend.array(p.x[0]))
    memory = backend.array(np.zeros(20, np.float32))
    for start in (0, 5, 10):
        x, out = memory[5:15].reshape(2, 5), memory[start : start + 10].reshape(2, 5)
        x[...] = backend.array(p.x[0])
        p.layer.stream(2).step(x, out=out)
        assert_same_bits(backend.numpy(out), backend.numpy(expected))


def copies(stream: gpurnn.Stream) -> list[gpurnn.Stream]:
    return [copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]


@every_cell
@pytest.mark.parametrize("loaded", [False, True])
def test_copies_step_on_by_themselves(cell: str, loaded: bool) -> None:
    """A copy has the parameters and the state that the stream had, whatever the layer has got since."""
    p = Problem(cell, num_layers=2)
    y, _ = p.layer(p.x, p.state)
    stream = p.layer.stream(3, p.state)
    stream.name = "microphone"  # type: ignore[attr-defined]
    assert_same_bits(stream.step(p.x[0]), y[0])
    if loaded:
        p.layer.load_params({name: a + 1 for name, a in p.layer.params.items()})
    for clone in copies(stream):
        assert (clone.batch_size, clone.name) == (3, "microphone")  # type: ignore[attr-defined]
        assert_same_bits(np.stack([clone.step(x_t) for x_t in p.x[1:]]), y[1:])
    assert_same_bits(np.stack([stream.step(x_t) for x_t in p.x[1:]]), y[1:])


@every_cell
def test_copies_of_a_stream_without_a_step(cell: str) -> None:
    p = Problem(cell)
    stream = p.layer.stream(3)
    for clone in copies(stream):
        assert clone._fresh
        assert_same_bits(clone.step(p.x[0]), p.layer.stream(3).step(p.x[0]))


@every_cell
@pytest.mark.parametrize("loaded", [False, True])
def test_pickles_of_0_1_0_step_on(cell: str, loaded: bool) -> None:
    """They hold the layer, and the stream's parameters where the layer had others by then."""
    p = Problem(cell)
    y, _ = p.layer(p.x, p.state)
    params = dict(p.layer.params) if loaded else None
    if loaded:
        p.layer.load_params({name: a + 1 for name, a in p.layer.params.items()})
    stream = gpurnn.Stream.__new__(gpurnn.Stream)
    own = {"batch_size": 3, "threads": None, "state": p.state, "attributes": {"name": "microphone"}}
    stream.__setstate__({"layer": p.layer, "params": params, **own})
    assert_same_bits(np.stack([stream.step(x_t) for x_t in p.x]), y)
    assert stream.name == "microphone"  # type: ignore[attr-defined]
    assert stream.__getstate__()["attributes"] == {"name": "microphone"}
