"""Many series at once: a layer over an array larger than anybody holds, on two worker processes, with Dask.

The data are made chunk by chunk on the workers, and only the answer comes back: which of 20,000 noisy series hold a
short burst. The same bits would come from one call over one array; a sample of them is compared.

    pip install 'gpurnn[examples]'
    python examples/many_series_dask.py
"""

import time

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster

import gpurnn
from gpurnn.interop.dask import apply

SERIES, STEPS, ROWS = 20_000, 200, 2_000  # in all, in time, in a chunk
UNITS = 32


def series(block, block_info=None):
    """Makes a chunk (T, B, 1) of noise, with a burst of 20 steps in every third row."""
    first = block_info[None]["array-location"][1][0]
    generator = np.random.default_rng(first)
    x = 0.3 * generator.standard_normal(block.shape).astype(np.float32)
    for row in range(-first % 3, block.shape[1], 3):
        at = generator.integers(0, STEPS - 20)
        x[at : at + 20, row] += 1
    return x


def leaky_counter():
    """Makes an LSTM that needs no training: its cells add up values above a threshold and forget slowly."""
    layer = gpurnn.LSTM(1, UNITS, seed=0)
    W_x, b = np.zeros((4 * UNITS, 1), np.float32), np.zeros(4 * UNITS, np.float32)
    f, i, o, g = (slice(gate * UNITS, (gate + 1) * UNITS) for gate in range(4))
    b[f], b[o] = 2.2, 4  # forgets a tenth a step; always open
    W_x[i], b[i] = 6, -4  # lets in what is above 0.7
    W_x[g] = np.linspace(0.2, 1, UNITS)[:, None]
    names = {"W_x": W_x, "W_h": np.zeros((4 * UNITS, UNITS), np.float32), "b": b}
    layer.load_params({f"layers.0.{name}": array for name, array in names.items()})
    return layer


def main():
    layer = leaky_counter()
    chunks = ((STEPS,), (ROWS,) * (SERIES // ROWS), (1,))
    x = da.zeros((STEPS, SERIES, 1), chunks=chunks, dtype=np.float32).map_blocks(series, dtype=np.float32)
    y, _ = apply(layer, x)
    loudest = y.max(axis=0)[:, -1]  # (B,): of the most sensitive cell
    sizes = f"x {x.nbytes / 2**20:.0f} MiB, y {y.nbytes / 2**20:.0f} MiB"
    print(f"{SERIES} series of {STEPS} steps, in {len(x.chunks[1])} chunks: {sizes}")

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        begin = time.perf_counter()
        found = loudest.compute()
        seconds = time.perf_counter() - begin
    once, _ = layer(x[:, :ROWS].compute(scheduler="synchronous"))
    same = np.array_equal(once.max(axis=0)[:, -1], found[:ROWS])

    burst = np.arange(SERIES) % 3 == 0
    counts, edges = np.histogram(found, bins=24, range=(0, 1))
    with_burst, _ = np.histogram(found[burst], bins=edges)
    print(f"\n{'loudest output':>15}{'series':>8}  # holds a burst, . holds none")
    for low, count, hits in zip(edges, counts, with_burst, strict=False):
        if count:
            width = 50 * count / counts.max()
            marks = round(width * hits / count)
            print(f"{low:>15.2f}{count:>8}  {'#' * marks}{'.' * (round(width) - marks)}")
    threshold = 0.9
    loud = found > threshold
    print(f"\nabove {threshold}: {loud[burst].mean():.1%} of those with a burst, {loud[~burst].mean():.1%} of those without")
    print(f"two processes took {seconds:.1f} s, {SERIES / seconds:,.0f} series a second; the bits of one call: {same}")
    assert same


if __name__ == "__main__":
    main()
