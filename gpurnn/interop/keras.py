"""Keras's masks as lengths, which a call of a layer from `gpurnn.from_keras` needs where Keras leaves steps out.

    y, state = layer(x, lengths=lengths_of(mask))  # padding at the end, as Keras's own tools put it
    x, lengths = to_front(x, mask)  # padding at the start
    y, state = layer(x, lengths=lengths)
    y = from_front(y, mask)

Masks are True where a step counts: `Embedding.compute_mask(tokens)`, `tokens != 0`, `(x != 0).any(axis=2)`. Outputs at masked
steps are 0 here; Keras repeats the last one before them unless the layer has zero_output_for_mask. Needs NumPy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array


def lengths_of(mask: Any) -> Array:
    """Gives the lengths (B,) of a mask (B, T) whose rows are padded at the end.

    Raises ValueError for rows with holes and for rows padded at the start, which `to_front` takes; TypeError for masks
    that are not boolean.
    """
    mask = _checked(mask)
    lengths: Array = mask.sum(axis=1)
    bad = np.flatnonzero(~_solid(mask, np.zeros_like(lengths), lengths))
    if bad.size:
        row = int(bad[0])
        _refuse_holes(mask[row : row + 1], row)
        raise ValueError(
            f"mask: expected padding at the end, got row {row} with padding before its steps; to_front moves them"
        )
    return lengths


def to_front(x: Any, mask: Any) -> tuple[Array, Array]:
    """Rolls each row's steps to its front: x (B, T, ...) -> x rolled, lengths (B,).

    mask (B, T) may be padded at the start, at the end, or both. Raises ValueError for rows with holes.
    """
    x, mask = np.asarray(x), _checked(mask)
    return _rolled(x, mask, 1), mask.sum(axis=1)


def from_front(y: Any, mask: Any) -> Array:
    """Rolls outputs (B, T, ...) of what `to_front` gave back to where the mask (B, T) has their steps."""
    return _rolled(np.asarray(y), _checked(mask), -1)


def _rolled(x: Array, mask: Array, sign: int) -> Array:
    if x.shape[:2] != mask.shape:
        raise ValueError(f"expected shape {(*mask.shape, '...')} for this mask, got {x.shape}")
    _refuse_holes(mask)
    if not mask.shape[1]:
        return x.copy()
    starts = mask.argmax(axis=1)
    steps = (np.arange(mask.shape[1]) + sign * starts[:, None]) % mask.shape[1]
    return np.asarray(x[np.arange(len(x))[:, None], steps])


def _checked(given: Any) -> Array:
    mask: Array = np.asarray(given)
    if mask.dtype != np.bool_:
        raise TypeError(f"mask: expected bool, True where a step counts, got {mask.dtype}; compare first: tokens != 0")
    if mask.ndim != 2:
        raise ValueError(f"mask: expected shape (B, T), got {mask.shape}")
    return mask


def _refuse_holes(mask: Array, first: int = 0) -> None:
    starts = mask.argmax(axis=1) if mask.shape[1] else np.zeros(len(mask), np.intp)
    bad = np.flatnonzero(~_solid(mask, starts, starts + mask.sum(axis=1)))
    if bad.size:
        raise ValueError(f"mask: row {first + int(bad[0])} has holes: steps that do not count between steps that do")


def _solid(mask: Array, starts: Array, ends: Array) -> Array:
    """Tells of each row whether it is True from its start to its end, and nowhere else."""
    steps = np.arange(mask.shape[1])
    return np.asarray(((steps >= starts[:, None]) & (steps < ends[:, None]) == mask).all(axis=1))
