"""The records that kernels read: a `job` is one direction of one layer in one call, a `share` is one thread's share of a job.
A kernel that packs weights reads a `packing`, of one array, instead of a job.

Kernels receive these NumPy records by address and read their fields by name. All fields are int64: sizes, byte addresses (0:
absent) and byte strides. Job and packing also carry a `zero` of the element type, which chooses the vectors.

Sizes: T steps, B rows, I inputs, H units, P units of h (H but for a projected layer). Rows are counted in `order`: longest
first, so that the rows still running at a step are always the first ones. A *panel* is a run of packed columns that one tile
product makes: one vector of units with all its gates (LSTM, GRU reset after), two vectors of units (GRU reset before), NR_BACK
vectors (back-propagated h, projected h).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype
from numba.core import types
from numba.core.datamodel.models import RecordModel
from numba.core.datamodel.registry import register_default

from .aligned import ALIGNMENT
from .target import target

VECTOR_BYTES = target().vector_bytes
V1, V2, V3, V4 = (count * VECTOR_BYTES for count in (1, 2, 3, 4))  # bytes of so many vectors
ROW_ENTRY = 32  # bytes of an entry of the row table: where a row of a step writes y, its gates, its c and its m

_JOB = (
    *("T", "B", "I", "H", "P", "lanes", "reverse"),
    # vectors that the gates of the units in the last panel share; 0: each gate has its own
    *("tail",),
    # vectors of a wide panel
    *("wide",),
    # tables of the kernels that multiply, by the width of their panels; the kernels that this job's loops call
    *("tiles", "tiles_transposed", "project_kernel", "step_kernel", "second_kernel", "copy_kernel"),
    # of a format of fewer bits, the kernel that converts rows, and vectors of packets before those of a vector of packed
    # weights; packets of a row of x, h and m
    *("convert_kernel", "head", "x_depth", "h_depth", "m_depth"),
    # the kernel of the recurrent product back through time, where tiles of AMX make it, or 0
    *("recurrent_kernel",),
    # x[t, b, i] at x + t * x_t + b * x_b + i * x_i; y and dy alike, their units side by side
    *("x", "x_t", "x_b", "x_i", "y", "y_t", "y_b", "dy", "dy_t", "dy_b", "dx"),
    # per row of `order`: its index in the batch, and its number of steps (0: all rows have T, in the batch's order)
    *("order", "lengths"),
    # packed weights and biases; *_n: the candidate's, where it has a product of its own
    *("w_x", "w_h", "b", "w_x_n", "w_h_n", "b_n"),
    # the projection; p_f p_i p_o, or 0; one vector of the clip, infinite without one; zeros, a panel of them
    *("w_p", "peephole", "limit", "zeros"),
    # user arrays (B, P) and (B, H): initial and final state, and their gradients; h's and c's stride of a row
    *("h_0", "c_0", "h_n", "c_n", "h_b", "c_b", "dh_n", "dc_n", "dh_0", "dc_0"),
    # stride of padded rows in `order`
    *("row",),
    # for the backward pass, at [t, b]: activated gates; c; m; their strides of a (t, b) row; whether they go past the caches
    *("saved", "saved_row", "saved_c", "saved_m", "unit_row", "streaming"),
    # arrays that get copies of x and of y as the steps go, or 0: the backward pass's own x, and the caller's y
    *("x_copy", "x_copy_t", "x_copy_b", "y_copy", "y_copy_t", "y_copy_b"),
    # gradients at [t, b] (rows of units: unit_row apart): of the gates that W_x saw; what W_hn alone saw (dq) or was fed (rh)
    *("d_gates", "d_row", "dq", "fed", "saved_dh"),
    # gradients in `order`, rows padded: of h, c, r * h, m; of h as it was before a step; of one step's gates, in two planes,
    # those of n `step_n` bytes along; and the initial c
    *("dh", "dc", "drh", "dm", "dh_step", "step", "step_plane", "step_row", "step_n", "c_start"),
    # results: dW (gates * H, columns) with padded rows, db, db_hn; and the lengths by index in the batch, or 0
    *("dw_x", "dw_x_row", "dw_h", "dw_h_row", "dw_p", "dw_p_row", "db", "db_hn", "d_peephole", "gates", "batch_lengths"),
    # by gate, two words: which gradients its rows of W_h saw, and what they were multiplied by (see `weight_gradients.py`)
    *("recurrent",),
)

JOB_WORD = {name: index for index, name in enumerate(_JOB)}

_PACKING = (
    # a matrix (all gates * H, columns), row after row, and the packed array
    *("source", "H", "columns", "to", "item"),
    # the gates that are packed, in this order; by gate, what elements are multiplied by
    *("gates", "gates_n"),
    # units that are packed of each gate, lanes of a vector, vectors of a panel
    *("units", "lanes", "width"),
)

PACKING_WORD = {name: index for index, name in enumerate(_PACKING)}

_SHARE = (
    *("job", "kernel"),
    # its rows of `order`, taken row_cap at a time, its panels, and the vectors of h that it makes
    *("row_begin", "row_end", "row_cap", "panel_begin", "panel_end", "out_begin", "out_end"),
    # room for the pre-activated gates of `capacity` (step, row) pairs, and for as many gathered rows of x
    *("slots", "slots_n", "slot_0", "slot_row", "slot_panel", "row_major", "gathered", "gathered_row", "capacity"),
    *("row_table", "panel"),
    # room for rows of state that are converted, and their stride
    *("converted", "converted_row"),
    # whether a step projects its own x, where that lies, and its rows' stride
    *("fused", "x", "x_row"),
    # panels that a step takes at once, how many groups of them there are; steps of the calls before
    *("at_once", "groups", "turn"),
    # groups of a step's first phase, of its second one (0: there is none), of copies; how each is meant to be shared out
    *("groups_1", "cuts_1", "groups_2", "cuts_2", "groups_3", "cuts_3"),
    # the forward pass's state, padded rows in `order`, which shares of the same rows share: h twice (read one, write the
    # other), c, rh = r * h, m = o * tanh(c); the packed recurrent weights, the job's or a copy of them
    *("h", "h_plane", "c", "rh", "m", "w_h", "w_h_n"),
    # room for what a bundle of vectors takes
    *("words",),
    # groups of this phase that the share has taken; the team's memory where threads claim them, or 0; what a worker has
    # claimed before, plus 1; pieces that the share has made in this phase; shares that this one leads through a sequence, or 0
    *("taken", "claims", "given", "pieces", "leads"),
    # the slots of the first group; bytes from one group's slots to the next one's (of the second
    # product: slot_n_group), or 0 where all groups have the same
    *("slots_base", "slots_n_base", "slot_group", "slot_n_group"),
    # where the share looks whether it leaves off, or 0; whether the thread that runs it may look for signals
    *("stop", "asks"),
    # looks before the share takes pieces whose owner has not begun
    *("patience",),
    # threads that make panels of the same rows, and the rank of this share's among them
    *("team_size", "rank"),
)


@cache
def job_dtype(element: str) -> np.dtype[np.void]:
    """Gives the record of a job over "float32" or "float64" elements."""
    return _over(element, _JOB)


@cache
def packing_dtype(element: str) -> np.dtype[np.void]:
    """Gives the record of a packing over "float32" or "float64" elements."""
    return _over(element, _PACKING)


def _over(element: str, names: Sequence[str]) -> np.dtype[np.void]:
    fields: list[tuple[str, str]] = [(name, "int64") for name in names]
    return np.dtype([*fields, ("zero", element)], align=True)


# apart from the next one, to which another thread writes at every panel
_SHARE_BYTES = -(-8 * len(_SHARE) // ALIGNMENT) * ALIGNMENT
SHARE = np.dtype({"names": _SHARE, "formats": ["int64"] * len(_SHARE), "itemsize": _SHARE_BYTES})


class _Named(types.Record):
    """A record type that has a fixed name in symbols. Numba numbers records in the order in which a process meets them. Two
    cached kernels, compiled by two processes for the two element types, could then have helper functions with the same
    symbol, and one would take the place of the other."""

    def __init__(self, symbol: str, dtype: np.dtype[np.void]) -> None:
        plain: Any = from_dtype(dtype)
        super().__init__([(name, field._asdict()) for name, field in plain.fields.items()], plain.size, plain.aligned)
        self.symbol = symbol

    @property
    def mangling_args(self) -> tuple[str, tuple[()]]:
        return self.symbol, ()


register_default(_Named)(RecordModel)


@cache
def job_pointer(element: str) -> types.CPointer:
    return types.CPointer(_Named(f"job_{element}", job_dtype(element)))


@cache
def packing_pointer(element: str) -> types.CPointer:
    return types.CPointer(_Named(f"packing_{element}", packing_dtype(element)))


SHARE_POINTER = types.CPointer(_Named("share", SHARE))
