"""A layer over a `dask.array` that is chunked along the batch: larger than memory, on many processes or machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from .. import checks


def apply(layer: Any, x: Any, lengths: Any = None, *, precision: str | None = None) -> tuple[Any, Any]:
    """Runs `layer(x, lengths=lengths)` lazily, one task for each chunk of rows.

        y, state = gpurnn.interop.dask.apply(layer, x)
        y.compute()

    Args:
        layer: a `gpurnn.LSTM` or `GRU`; each worker gets one copy.
        x: dask.array (T, B, I), or (B, T, I) with batch_first, in one chunk along time and input.
        lengths: integers (B,), NumPy or dask.
        precision: of the layer's products, as `layer.with_precision` takes it; None for the layer's own.

    Returns y and the state as dask arrays, chunked as x is; bits are those of one call. Raises ValueError for wrong shapes and
    chunks, TypeError for wrong types and dtypes, before anything is computed.
    """
    import dask.array as da
    from dask.delayed import delayed

    if not isinstance(x, da.Array):
        raise TypeError(f"x: expected a dask.array.Array, got {type(x).__name__}")
    if x.dtype != layer.dtype:
        raise TypeError(f"x: expected {layer.dtype.name}, got {x.dtype}; convert with .astype")
    axis = 0 if layer.batch_first else 1
    letters = "B, T, I" if layer.batch_first else "T, B, I"
    if x.ndim != 3 or x.shape[2] != layer.input_size:
        raise ValueError(f"x: expected shape ({letters}) with I = {layer.input_size}, got {x.shape}")
    if any(np.isnan(size) for size in x.shape):
        raise ValueError(f"x: expected known sizes, got {x.shape}; x.compute_chunk_sizes() finds them")
    if x.numblocks[1 - axis] != 1 or x.numblocks[2] != 1:
        raise ValueError(
            f"x: expected chunks along the batch only, got {x.chunks}; x.rechunk({{{1 - axis}: -1, 2: -1}}) makes them"
        )
    if precision is not None:
        layer = layer.with_precision(precision)
    steps, batch = x.shape[1 - axis], x.shape[axis]
    rows = x.chunks[axis]
    parts = _lengths(lengths, rows, batch, steps)

    shared = delayed(layer, traverse=False, pure=True)
    call = delayed(_call, pure=True)
    blocks = [block.item() for block in np.array(x.to_delayed(), dtype=object).reshape(len(rows), 1)]
    results = [call(shared, block, part) for block, part in zip(blocks, parts, strict=True)]
    width = layer.directions * (getattr(layer, "proj_size", 0) or layer.hidden_size)
    shapes = [(count, steps, width) if axis == 0 else (steps, count, width) for count in rows]
    y = _joined(da, [one[0] for one in results], shapes, layer.dtype, axis)
    layers = layer.num_layers * layer.directions
    sizes = [getattr(layer, "proj_size", 0) or layer.hidden_size, layer.hidden_size][: len(layer.states)]
    state = [
        _joined(da, [one[1 + index] for one in results], [(layers, count, size) for count in rows], layer.dtype, 1)
        for index, size in enumerate(sizes)
    ]
    return y, tuple(state) if len(state) == 2 else state[0]


def _joined(da: Any, blocks: list[Any], shapes: Sequence[tuple[int, ...]], dtype: Any, axis: int) -> Any:
    arrays = [da.from_delayed(block, shape, dtype) for block, shape in zip(blocks, shapes, strict=True)]
    return da.concatenate(arrays, axis=axis)


def _lengths(lengths: Any, rows: tuple[int, ...], batch: int, steps: int) -> list[Any]:
    """Gives each chunk's part of the lengths."""
    import dask.array as da

    if lengths is None:
        return [None] * len(rows)
    if isinstance(lengths, da.Array):
        if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
            raise ValueError(f"lengths: expected integers ({batch},), got {lengths.dtype} {lengths.shape}")
        return [part.item() for part in lengths.rechunk((rows,)).to_delayed().reshape(len(rows), 1)]
    whole = checks.lengths(lengths, batch, steps)
    return list(np.split(whole, np.cumsum(rows)[:-1]))


def _call(layer: Any, x: Array, lengths: Array | None) -> tuple[Array, ...]:
    y, state = layer(np.asarray(x), lengths=lengths)
    return (y, *state) if len(layer.states) == 2 else (y, state)
