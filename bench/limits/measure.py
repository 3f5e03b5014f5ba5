"""The machine's limits for one thread count: FMA peak in registers, SGEMM, the rate of reading weights; the cell equations.

Run in a process of its own (bench/harness/worker.py), never beside an implementation.
"""

from __future__ import annotations

import importlib.util
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bench.limits.machine_code import Loops

# bytes, 16 KiB to 16 MiB, divided over the threads: those of an LSTM of 2**k units, and of a GRU
READ_SIZES = tuple(sorted({2**k for k in range(14, 25)} | {3 * 2**k for k in range(13, 23)}))
SGEMM_SIZE = 1024
RUN_S = 0.005
REPEATS = 30  # the best counts: a limit is what the machine can do when nothing disturbs it
ALIGN = 4096


@dataclass(frozen=True)
class Limits:
    """The machine's limits, for all the threads together."""

    threads: int
    lanes: int  # float32 in a vector
    fma_flops: float  # flops a second in registers
    sgemm_flops: float  # flops a second, 1024^3, the better of NumPy's BLAS and, where it is installed, PyTorch's
    read_bytes: dict[int, float]  # bytes a second by total size in bytes
    unit_ns: dict[str, float]  # of one thread, for gpurnn's cell equations of a unit of a row of a step, by cell
    others: float = 0.0  # CPUs that the rest of the machine kept busy meanwhile

    def bandwidth(self, size: float) -> float:
        """Bytes a second when `size` bytes are read back and forth; between measured sizes by their logarithm."""
        sizes = sorted(self.read_bytes)
        rates = [self.read_bytes[s] for s in sizes]
        return float(np.interp(math.log(size), [math.log(s) for s in sizes], rates))


def aligned(size: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], int]:
    """Zeros, and the address of their first aligned byte."""
    # written: pages of np.zeros that are only read are all one page, which the first cache holds
    memory = np.full(size + ALIGN, 0, np.uint8)
    address = int(memory.ctypes.data)
    return memory, -(-address // ALIGN) * ALIGN


def _best_seconds(pool: ThreadPoolExecutor, threads: int, work: Callable[[int], None]) -> float:
    """Shortest time from the first thread's start to the last one's end, of REPEATS runs of work(thread) on each."""
    barrier = threading.Barrier(threads)

    def timed(thread: int) -> tuple[float, float]:
        barrier.wait()
        begin = time.perf_counter()
        work(thread)
        return begin, time.perf_counter()

    best = math.inf
    for _ in range(REPEATS):
        spans = list(pool.map(timed, range(threads)))
        best = min(best, max(end for _, end in spans) - min(begin for begin, _ in spans))
    return best


def _rounds_for(seconds: float, run: Callable[[int], None]) -> int:
    """Rounds of `run` that take about so long on one thread."""
    rounds = 64
    while True:
        begin = time.perf_counter()
        run(rounds)
        took = time.perf_counter() - begin
        if took > seconds / 8:
            return max(1, int(rounds * seconds / took))
        rounds *= 4


def fma_flops(loops: Loops, pool: ThreadPoolExecutor, threads: int) -> float:
    """Flops a second of all threads, operands and sums in registers."""
    buffers = [aligned(ALIGN) for _ in range(threads)]
    rounds = _rounds_for(RUN_S, lambda n: loops.fma(buffers[0][1], n))
    seconds = _best_seconds(pool, threads, lambda thread: loops.fma(buffers[thread][1], rounds))
    return threads * rounds * loops.round_flops / seconds


def read_bytes(loops: Loops, pool: ThreadPoolExecutor, threads: int, size: int) -> float:
    """Bytes a second of all threads, each reading its own 1/threads of `size` bytes over and over."""
    part = size // threads // loops.round_bytes * loops.round_bytes
    buffers = [aligned(part) for _ in range(threads)]
    sums = [aligned(ALIGN) for _ in range(threads)]

    def read(thread: int, rounds: int) -> None:
        loops.read(sums[thread][1], buffers[thread][1], part, rounds)

    for thread in range(threads):
        read(thread, part // loops.round_bytes)
    rounds = _rounds_for(RUN_S, lambda n: read(0, n))
    seconds = _best_seconds(pool, threads, lambda thread: read(thread, rounds))
    return threads * rounds * loops.round_bytes / seconds


def sgemm_flops(threads: int) -> float:
    """Flops a second of the best matrix product at hand; of NumPy with the threads that the environment allows it."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SGEMM_SIZE, SGEMM_SIZE), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    products: list[Callable[[], object]] = [lambda: np.matmul(a, b, out=out)]
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        tensors = [torch.from_numpy(array) for array in (a, b, out)]
        products.append(lambda: torch.mm(*tensors[:2], out=tensors[2]))
    best = math.inf
    for product in products:
        for _ in range(REPEATS):
            begin = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - begin)
    return 2.0 * SGEMM_SIZE**3 / best


def measure(threads: int) -> Limits:
    """All of them, in a few seconds."""
    # gpurnn itself: not for the processes of its peers, which import this module too
    from bench.limits.pointwise import unit_ns

    loops = Loops()
    with ThreadPoolExecutor(threads) as pool:
        peak = fma_flops(loops, pool, threads)
        rates = {size: read_bytes(loops, pool, threads, size) for size in READ_SIZES}
    cells = unit_ns()
    # last: thread pools spin after a call
    return Limits(threads, loops.vectors.lanes, peak, sgemm_flops(threads), rates, cells)


def best_of(a: Limits, b: Limits) -> Limits:
    """Each limit's larger one, of two measurements of one machine."""
    return Limits(
        a.threads,
        a.lanes,
        max(a.fma_flops, b.fma_flops),
        max(a.sgemm_flops, b.sgemm_flops),
        {size: max(rate, b.read_bytes[size]) for size, rate in a.read_bytes.items()},
        {cell: min(ns, b.unit_ns[cell]) for cell, ns in a.unit_ns.items()},
        min(a.others, b.others),
    )
