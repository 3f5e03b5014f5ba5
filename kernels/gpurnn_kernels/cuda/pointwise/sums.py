# mypy: disable-error-code="no-untyped-def"
"""Kernels over whole sequences, once a call: sums over rows, and what ragged batches need.

Each thread has one column; the grid covers rows and columns.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..block import THREADS, Block, row_and_column
from ..compiler import types
from ..host.device import Device, DeviceArray, Kernel
from ..intrinsics.lanes import Lanes, lanes_of
from ..intrinsics.memory import split_index
from ..records import Count, Lengths, Number, Step, Wide, record_type

_RESIDENT = 8
_CHUNK = 64  # rows that one thread sums

int32, int64, uint32 = types.int32, types.int64, types.uint32


def _kernel(function: Callable[..., None], record: Any, name: str, storage: int) -> Kernel:
    return Kernel(f"{name}_float{storage}", function, (record_type(record, storage),), THREADS, _RESIDENT)


def _single(storage: int) -> Lanes:
    return lanes_of(1, max(storage, 32))


class ColumnSums(NamedTuple):
    matrix: Number  # (rows, width)
    rows: Count
    width: Count
    sums: Wide  # (chunks, width)
    chunks: Count


@cache
def _column_sums(storage: int) -> Kernel:
    CHUNK, (load, store, zero) = _CHUNK, _single(storage)

    def sum_columns(a):
        chunk, column = row_and_column()
        if chunk < a.chunks and column < a.width:
            first, width, total = chunk * CHUNK, int64(a.width), zero()
            at = first * width + column
            for _ in range(int32(min(CHUNK, a.rows - first))):
                total += load(a.matrix, at)
                at += width
            store(a.sums, chunk * width + column, total)

    return _kernel(sum_columns, ColumnSums, "column_sums", storage)


def column_sums(device: Device, matrix: DeviceArray) -> DeviceArray:
    """Sums a contiguous matrix (N, W) -> (W,), float32 of a float16 one, in one order whatever the device: no atomics."""
    dtype = np.dtype(np.float32) if matrix.dtype == np.float16 else matrix.dtype
    while True:
        rows, width = matrix.shape
        chunks = -(-rows // _CHUNK)
        sums = device.empty((chunks, width), dtype)
        arguments = ColumnSums(matrix=matrix, rows=rows, width=width, sums=sums, chunks=chunks)
        device.launcher(_column_sums(8 * matrix.dtype.itemsize), Block().grid(chunks, width), arguments)()
        if chunks == 1:
            return sums[0]
        matrix = sums


class Masked(NamedTuple):
    x: Number  # (T * B, width)
    out: Number  # (T * B, width)
    rows: Count  # T * B
    width: Count
    batch: Count
    lengths: Lengths  # (B,)


@cache
def _masked(storage: int) -> Kernel:
    load, store, zero = _single(storage)

    def mask(a):
        row, column = row_and_column()
        if row < a.rows and column < a.width:
            at = row * int64(a.width) + column
            t, b = split_index(row, a.batch)
            store(a.out, at, load(a.x, at) if int64(uint32(t)) < a.lengths[uint32(b)] else zero())

    return _kernel(mask, Masked, "masked", storage)


def masked(device: Device, x: DeviceArray, lengths: DeviceArray) -> DeviceArray:
    """Copies x (T, B, I), contiguous, with zeros past the lengths: NaN there would spoil the sums of the weight gradients."""
    steps, batch, width = x.shape
    out = device.empty(x.shape, x.dtype)
    rows = steps * batch
    arguments = Masked(x=x, out=out, rows=rows, width=width, batch=batch, lengths=lengths)
    device.launcher(_masked(8 * x.dtype.itemsize), Block().grid(rows, width), arguments)()
    return out


class Starts(NamedTuple):
    source: Number  # (T, B, width)
    out: Number  # (B, width)
    width: Count
    batch: Count
    lengths: Lengths  # (B,)
    last: Step  # T - 1


@cache
def _starts(storage: int) -> Kernel:
    load, store, zero = _single(storage)

    def gather(a):
        row, column = row_and_column()
        if row < a.batch and column < a.width:
            width, t = int64(a.width), min(a.lengths[row] - 1, a.last)
            found = load(a.source, (t * int64(a.batch) + row) * width + column) if t >= 0 else zero()
            store(a.out, row * width + column, found)

    return _kernel(gather, Starts, "starts", storage)


def starts(device: Device, source: DeviceArray, lengths: DeviceArray) -> DeviceArray:
    """Takes each row's last valid step, where the reverse direction starts, of a contiguous (T, B, W) -> (B, W).

    Rows without a valid step get zeros.
    """
    steps, batch, width = source.shape
    out = device.empty((batch, width), source.dtype)
    arguments = Starts(source=source, out=out, width=width, batch=batch, lengths=lengths, last=steps - 1)
    device.launcher(_starts(8 * source.dtype.itemsize), Block().grid(batch, width), arguments)()
    return out
