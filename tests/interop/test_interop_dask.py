"""gpurnn.interop.dask: the bits of one call, lazily, on other processes, through the death of one."""

import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import gpurnn

da = pytest.importorskip("dask.array", reason="dask is missing")
from gpurnn.interop.dask import apply  # noqa: E402


def problem(batch_first: bool = False, kind: Any = gpurnn.LSTM, **options: Any) -> tuple[Any, Any, Any]:
    """A layer, x for it, and lengths."""
    layer = kind(3, 5, 2, bidirectional=True, batch_first=batch_first, seed=0, **options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 7, 3) if batch_first else (7, 20, 3)).astype(np.float32)
    return layer, x, rng.integers(0, 8, 20)


def chunked(x: Any, layer: Any, rows: Any = (6, 6, 6, 2)) -> Any:
    return da.from_array(x, chunks=(rows, -1, -1) if layer.batch_first else (-1, rows, -1))


@pytest.mark.parametrize("kind", [gpurnn.LSTM, gpurnn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", ["none", "numpy", "dask"])
def test_the_bits_of_one_call(kind: Any, batch_first: bool, lengths: str) -> None:
    layer, x, counts = problem(batch_first, kind)
    given = {"none": None, "numpy": counts, "dask": da.from_array(counts, chunks=9)}[lengths]
    lazy = apply(layer, chunked(x, layer), given)
    wanted = layer(x, lengths=None if lengths == "none" else counts)
    states = lazy[1] if isinstance(lazy[1], tuple) else (lazy[1],)
    assert lazy[0].chunks[0 if batch_first else 1] == (6, 6, 6, 2)
    got = [one.compute(scheduler="threads") for one in (lazy[0], *states)]
    assert_same_bits(tuple(got), (wanted[0], *(wanted[1] if kind is gpurnn.LSTM else (wanted[1],))))
    for one, array in zip((lazy[0], *states), got, strict=True):
        assert one.shape == array.shape
        assert one.dtype == array.dtype


def test_nothing_runs_before_it_is_asked_for() -> None:
    layer, _, _ = problem()

    def fail(block: Any) -> Any:
        raise RuntimeError("too early")

    options = {"dtype": np.float32, "meta": np.zeros(0, np.float32)}
    x = da.zeros((7, 20, 3), chunks=(-1, 5, -1), dtype=np.float32).map_blocks(fail, **options)
    y, _ = apply(layer, x)
    with pytest.raises(RuntimeError, match="too early"):
        y.compute(scheduler="synchronous")


def test_projections() -> None:
    layer, x, _ = problem(proj_size=2)
    y, (h, c) = apply(layer, chunked(x, layer))
    assert_same_bits((y.compute(), (h.compute(), c.compute())), layer(x))


REFUSED = {
    "numpy": (lambda layer, x: apply(layer, x), TypeError, "dask.array"),
    "dtype": (lambda layer, x: apply(layer, chunked(x.astype("f8"), layer)), TypeError, "expected float32, got float64"),
    "shape": (lambda layer, x: apply(layer, chunked(x[..., :2], layer)), ValueError, "I = 3"),
    "flat": (lambda layer, x: apply(layer, da.from_array(x[:, 0])), ValueError, "I = 3"),
    "chunks": (lambda layer, x: apply(layer, da.from_array(x, chunks=(3, 20, 3))), ValueError, "rechunk"),
    "unknown": (lambda layer, x: apply(layer, chunked(x, layer)[:, da.from_array(np.ones(20, bool))]), ValueError, "known"),
    "lengths": (lambda layer, x: apply(layer, chunked(x, layer), np.full(20, 9)), ValueError, r"0\.\.7"),
    "lengths-shape": (lambda layer, x: apply(layer, chunked(x, layer), da.ones(19, dtype=int)), ValueError, r"\(20,\)"),
}


@pytest.mark.parametrize(("call", "error", "match"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(call: Any, error: type[Exception], match: str) -> None:
    layer, x, _ = problem()
    with pytest.raises(error, match=match):
        call(layer, x)


@pytest.fixture
def client() -> Any:
    """Two worker processes."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is missing")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    with distributed.LocalCluster(**options, silence_logs=50) as cluster, distributed.Client(cluster) as found:
        yield found


def layers_alive() -> int:
    gc.collect()
    return sum(isinstance(one, gpurnn.LSTM) for one in gc.get_objects())


@pytest.mark.filterwarnings("ignore")
def test_two_processes_with_a_copy_each(client: Any) -> None:
    layer, x, lengths = problem()
    y, (h, c) = apply(layer, chunked(x, layer, 2), lengths)
    y, h, c = client.persist([y, h, c])
    assert_same_bits((y.compute(), (h.compute(), c.compute())), layer(x, lengths=lengths))
    assert max(client.run(layers_alive).values()) == 1
    assert len(client.run(os.getpid)) == 2


def slow(block: Any, folder: str = "") -> Any:
    """Takes its time, and leaves a mark for each chunk."""
    time.sleep(0.15)
    Path(folder, f"{os.getpid()}-{time.monotonic_ns()}").touch()
    return block


@pytest.mark.filterwarnings("ignore")
def test_a_worker_killed_half_way_loses_nothing(client: Any, tmp_path: Path) -> None:
    layer, x, lengths = problem()
    source = chunked(x, layer, 1).map_blocks(slow, folder=str(tmp_path), dtype=x.dtype, meta=np.zeros(0, x.dtype))
    y, (h, _) = apply(layer, source, lengths)
    futures = client.compute([y, h])
    end = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 8 and time.monotonic() < end:
        time.sleep(0.02)
    victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    got = client.gather(futures)
    wanted, (wanted_h, _) = layer(x, lengths=lengths)
    assert_same_bits(tuple(got), (wanted, wanted_h))
    assert len(list(tmp_path.iterdir())) > 20  # some chunks were run again
