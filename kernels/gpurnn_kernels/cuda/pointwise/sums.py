"""Kernels over whole sequences, once a call: sums over rows, and what ragged batches need.

Each thread has one column; a grid of `row_and_unit` covers rows and columns.
"""

from functools import cache
from typing import Any

import numpy as np

from ..host.device import Device, DeviceArray, Kernel
from ..intrinsics.emission import Address, Block, Code, Count, Step, kernel
from ..intrinsics.number import INT32, INT64, Value

_RESIDENT = 8
_CHUNK = 64  # rows that one thread sums


def _at(k: Code, address: Any, row: Any, width: Any, column: Any) -> Any:
    """An element of a matrix of up to 2**64 bytes."""
    b = k.builder
    index = b.add(b.mul(row, b.zext(width, INT64)), b.zext(column, INT64))
    return b.add(address, b.mul(index, INT64(k.item)))


def _inside(k: Code, row: Any, rows: Any, column: Any, width: Any) -> Any:
    b = k.builder
    return b.if_then(b.and_(b.icmp_unsigned("<", row, rows), b.icmp_unsigned("<", column, width)))


@cache
def _column_sums(storage: int) -> Kernel:
    def sum_columns(k: Code, matrix: Address, rows: Count, width: Count, sums: Address, chunks: Count) -> None:
        b = k.builder
        chunk, column = k.row_and_unit(Block())
        with _inside(k, chunk, chunks, column, width):
            first = b.mul(chunk, INT32(_CHUNK))
            left = b.sub(rows, first)
            count = b.select(b.icmp_unsigned("<", left, INT32(_CHUNK)), left, INT32(_CHUNK))

            def term(i: Any) -> Any:
                row = b.zext(b.add(first, i), INT64)
                return k.load(_at(k, matrix, row, width, column), 1)[0]

            w = k.wide
            w.store(_at(w, sums, b.zext(chunk, INT64), width, column), [k.sum(count, term)])

    return kernel(sum_columns, storage, f"column_sums_float{storage}", _RESIDENT)


def column_sums(device: Device, matrix: DeviceArray) -> DeviceArray:
    """Of a contiguous matrix (N, W) -> (W,), float32 of a float16 one, in one order whatever the device: no atomics."""
    dtype = np.dtype(np.float32) if matrix.dtype == np.float16 else matrix.dtype
    while True:
        rows, width = matrix.shape
        chunks = -(-rows // _CHUNK)
        sums = device.empty((chunks, width), dtype)
        one = _column_sums(8 * matrix.dtype.itemsize)
        device.launcher(one, _grid(chunks, width), matrix, rows, width, sums)(chunks)
        if chunks == 1:
            return sums[0]
        matrix = sums


@cache
def _masked(storage: int) -> Kernel:
    def mask(k: Code, x: Address, width: Count, batch: Count, lengths: Address, out: Address, rows: Count) -> None:
        b = k.builder
        row, column = k.row_and_unit(Block())
        with _inside(k, row, rows, column, width):
            t = b.udiv(row, batch)
            length = k.load_int64(lengths, b.sub(row, b.mul(t, batch)))
            valid = b.icmp_signed("<", b.zext(t, INT64), length)
            place = b.zext(row, INT64)
            value = k.load(_at(k, x, place, width, column), 1)[0].value
            kept = Value(k, b.select(valid, value, k.constant(0.0).value))
            k.store(_at(k, out, place, width, column), [kept])

    return kernel(mask, storage, f"masked_float{storage}", _RESIDENT)


def masked(device: Device, x: DeviceArray, lengths: DeviceArray) -> DeviceArray:
    """x (T, B, I), contiguous, with zeros past the lengths: NaN there would spoil the sums of the weight gradients."""
    steps, batch, width = x.shape
    out = device.empty(x.shape, x.dtype)
    rows = steps * batch
    device.launcher(_masked(8 * x.dtype.itemsize), _grid(rows, width), x, width, batch, lengths, out)(rows)
    return out


@cache
def _starts(storage: int) -> Kernel:
    def gather(k: Code, source: Address, width: Count, batch: Count, lengths: Address, out: Address, last: Step) -> None:
        b = k.builder
        row, column = k.row_and_unit(Block())
        with _inside(k, row, batch, column, width):
            wide = b.sext(last, INT64)
            end = b.sub(k.load_int64(lengths, row), INT64(1))
            t = b.select(b.icmp_signed("<", end, wide), end, wide)
            empty = b.icmp_signed("<", t, INT64(0))
            place = b.add(b.mul(b.select(empty, INT64(0), t), b.zext(batch, INT64)), b.zext(row, INT64))
            value = k.load(_at(k, source, place, width, column), 1)[0].value
            kept = Value(k, b.select(empty, k.constant(0.0).value, value))
            k.store(_at(k, out, b.zext(row, INT64), width, column), [kept])

    return kernel(gather, storage, f"starts_float{storage}", _RESIDENT)


def starts(device: Device, source: DeviceArray, lengths: DeviceArray) -> DeviceArray:
    """Of (T, B, W), contiguous, each row's last valid step, where the reverse direction starts -> (B, W); zeros for rows
    without one."""
    steps, batch, width = source.shape
    out = device.empty((batch, width), source.dtype)
    device.launcher(_starts(8 * source.dtype.itemsize), _grid(batch, width), source, width, batch, lengths, out)(steps - 1)
    return out


def _grid(rows: int, width: int) -> tuple[int, int]:
    return Block().grid(rows, width)
