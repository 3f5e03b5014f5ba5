"""A call needs a bounded amount of memory beyond its input, output and weights, however long the sequence."""

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, leaves, new_layer
from reference_cells import CELLS

import gpurnn
from gpurnn.layers.plain_call import PLAIN_BYTES, PLAIN_LEAST, PlainCalls
from gpurnn_kernels.cpu.programs.layer import PROGRAMS

LIMIT = 32 << 20
every_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def beyond_results(call: Callable[[], Any]) -> int:
    """The most bytes in use during a call, less those of its results."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    result = call()
    _, peak = tracemalloc.get_traced_memory()
    return peak - before - sum(a.nbytes for a in leaves(result))


SHAPES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one row": (300_000, 1, {}),
    "rows": (40_000, 8, {}),
    "reverse": (40_000, 8, {"reverse": True}),
    "both": (20_000, 8, {"bidirectional": True}),
    "batch first": (40_000, 8, {"batch_first": True}),
    "stacked": (40_000, 8, {"num_layers": 2}),
    "stacked both": (20_000, 8, {"num_layers": 3, "bidirectional": True}),
}


@pytest.mark.usefixtures("traced")
@every_cell
@pytest.mark.parametrize("shape", SHAPES)
def test_long_sequences(cell: str, shape: str) -> None:
    T, B, options = SHAPES[shape]
    gpurnn.set_num_threads(2)
    layer = new_layer(cell, 3, 32, **options)
    x = np.zeros((B, T, 3) if "batch_first" in options else (T, B, 3), np.float32)
    layer(x[:2, :2])  # packs the weights
    y_bytes = T * B * 32 * 4 * layer.directions
    assert y_bytes > LIMIT  # so that any array of this size would show
    limit = LIMIT + (y_bytes if layer.num_layers > 1 else 0)
    lengths = np.arange(T, T - B, -1)
    for call in (lambda: layer(x), lambda: layer(x), lambda: layer(x, None, lengths), lambda: layer(x[..., ::-1])):
        assert beyond_results(call) < limit


@pytest.mark.usefixtures("traced")
@every_cell
def test_wide_layers(cell: str) -> None:
    gpurnn.set_num_threads(2)
    layer = new_layer(cell, 512, 1024)
    x = np.zeros((3, 128, 512), np.float32)
    layer(x[:, :1])
    for _ in range(2):
        assert beyond_results(lambda: layer(x)) < LIMIT


@pytest.mark.usefixtures("traced")
@every_cell
def test_what_stays_after_calls_of_many_shapes(cell: str) -> None:
    gpurnn.set_num_threads(2)
    layer = new_layer(cell, 128, 512)
    rows = np.zeros((24, 128, 128), np.float32)
    layer(rows[:1])
    state = layer(rows[:1])[1]
    before, _ = tracemalloc.get_traced_memory()
    for steps in range(1, 24):
        layer(rows[:steps])
        layer(rows[:steps])
        layer(rows[:steps], state)
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - before < PLAIN_BYTES * 5 // 4 + PROGRAMS.limit


@pytest.mark.usefixtures("traced")
@every_cell
def test_layers_are_freed(cell: str) -> None:
    x = np.zeros((2, 3, 64), np.float32)

    def use() -> None:
        layer = new_layer(cell, 64, 256)
        for _ in range(2):
            layer(x)
        layer.stream(3).step(x[0])
        _, vjp = layer.vjp(x)
        vjp(None)

    use()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(5):
        use()
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - before < 1 << 20


@every_cell
def test_layers_and_what_they_give_go_without_a_collection(cell: str) -> None:
    """A reference cycle would keep their memory until Python looks for cycles, which may be much later."""
    layer = new_layer(cell, 8, 16, num_layers=2)
    x = np.zeros((5, 3, 8), np.float32)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            layer(x)
            layer(x, None, [5, 2, 0])
        _, vjp = layer.vjp(x)
        vjp(None)
        stream = layer.stream(3)
        stream.step(x[0])
        plain = next(iter(layer._prepared.plain_calls.values()))
        gone = [weakref.ref(one) for one in (layer, layer._prepared, vjp, stream, stream._stepper, plain)]
        del layer, vjp, stream, plain
        assert [one() for one in gone] == [None] * len(gone)
    finally:
        gc.enable()


@pytest.mark.usefixtures("traced")
@every_cell
def test_calls_hold_no_array_of_the_caller(cell: str) -> None:
    """A layer remembers the shape of x, not x."""
    layer = new_layer(cell, 8, 16)
    x = np.zeros((5, 3, 8), np.float32)
    (y, last), vjp = layer.vjp(x)
    vjp(y)
    layer(x)
    held = [weakref.ref(a) for a in (x, y)]
    del x, y, last, vjp
    gc.collect()
    assert [one() for one in held] == [None, None]


@every_cell
def test_calls_in_a_loop_keep_nothing(cell: str) -> None:
    layer = new_layer(cell, 8, 16)
    x = np.zeros((5, 3, 8), np.float32)

    def calls() -> None:
        for _ in range(100):
            layer(x)
            layer(x, None, [5, 2, 0])
            layer.vjp(x)[1](None)
            layer.load_params(layer.params)

    # one thread, too, has its programs before memory is counted: on a busy machine a team gives way to it
    for threads in (1, 2):
        gpurnn.set_num_threads(threads)
        calls()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    calls()
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - before < 64 << 10


@every_cell
def test_plain_calls_of_all_layers_share_a_bound(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes that were called last stay ready, and those of layers that are gone count nothing."""
    calls = PlainCalls(10 * PLAIN_LEAST)
    monkeypatch.setattr("gpurnn.layers.plain_call.PLAIN_CALLS", calls)
    layers = [new_layer(cell, 4, 8) for _ in range(12)]
    x = np.zeros((3, 2, 4), np.float32)

    def ready() -> list[int]:
        calls.look()
        return [len(layer._prepared.plain_calls) for layer in layers]

    for layer in layers:
        layer(x)
        layer(x)
        layers[0](x)
    found = ready()
    assert found[0] == found[-1] == 1
    assert 2 <= sum(found) <= 10
    for steps in range(1, 40):
        layers[5](x[:1].repeat(steps, 0))
    assert sum(ready()) <= 10
    y, _ = layers[1](x)
    assert_same_bits(layers[1](x)[0], y)
    del layers[:], layer
    calls.look()
    assert not calls._calls


@pytest.mark.usefixtures("traced")
def test_what_many_layers_leave_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes that were called once hold no more for many layers than for one."""
    gpurnn.set_num_threads(1)
    limit = 2 << 20
    monkeypatch.setattr("gpurnn.layers.plain_call.PLAIN_CALLS", PlainCalls(limit))
    monkeypatch.setattr(PROGRAMS, "limit", limit)
    layers = [new_layer("lstm", 16, 128) for _ in range(6)]
    rows = np.zeros((12, 8, 16), np.float32)
    for layer in layers:
        layer.vjp(rows)[1](None)
    before, _ = tracemalloc.get_traced_memory()
    for steps in range(1, 12):
        for layer in layers:
            for _ in range(2):
                layer(rows[:steps])
            layer.vjp(rows[:steps])[1](None)
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - before < 3 * limit
