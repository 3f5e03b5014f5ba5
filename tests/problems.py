"""Tables that several suites are run over: sizes, and which kinds of layer run where."""

from collections.abc import Collection
from typing import Any

import pytest
from helpers import BACKENDS, KINDS, LAYERS, OUTPUTS, Backend, Problem
from hypothesis import strategies as st
from reference_cells import CELLS

SIZES = [  # T, B, I, H: vectors are 2 to 16 elements, tiles 3 to 8 rows
    (5, 3, 4, 7),
    (1, 1, 1, 1),
    (33, 2, 5, 31),
    (5, 13, 40, 33),
    (1, 3, 70, 100),
    (33, 1, 40, 64),
    (3, 50, 3, 20),
    (0, 2, 5, 7),
    (5, 0, 5, 7),
    (0, 0, 1, 1),
]
# the interpreter compiles kernels for each H: tests/cuda/ has those that are left out here, H = 1 and 33 and long rows
EMULATED_SIZES = [(5, 3, 4, 7), (33, 2, 5, 31), (1, 3, 70, 100), (3, 50, 3, 20), (0, 2, 5, 7), (5, 0, 5, 7), (0, 0, 1, 1)]
every_cell = pytest.mark.parametrize("cell", CELLS)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_option = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CELLS])
every_dtype = pytest.mark.parametrize("dtype", OUTPUTS)
PRECISIONS = ("bf16", "int8")
# what layers compute in, by their options
ARITHMETIC = {dtype: {"dtype": dtype} for dtype in OUTPUTS} | {precision: {"precision": precision} for precision in PRECISIONS}
every_arithmetic = pytest.mark.parametrize("arithmetic", ARITHMETIC.values(), ids=ARITHMETIC)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def _row(*values: Any, kind: str, backend: str) -> Any:
    marks = pytest.mark.gpu if backend == "cuda" else ()
    return pytest.param(kind, BACKENDS[backend], *values, marks=marks, id="-".join((kind, backend, *map(str, values))))


def _sizes(kind: str, backend: str) -> list[tuple[int, int, int, int]]:
    if backend == "cuda-emulated":
        return EMULATED_SIZES
    if kind in CELLS:
        return SIZES
    return [(1, 1, 1, 6), *(sizes for sizes in SIZES if sizes[3] > KINDS[kind][1].get("proj_size", 0))]


_PLACES = [(kind, backend) for backend in BACKENDS for kind in KINDS if backend == "cpu" or kind in CELLS]
# options run on the CPU alone
everywhere = pytest.mark.parametrize(
    ("kind", "backend"), [_row(kind=kind, backend=backend) for kind, backend in _PLACES], indirect=["backend"]
)


def every_option_of_layers(test: Any) -> Any:
    """Runs a test over the options of `LAYERS`, and over full and ragged batches of six rows."""
    test = pytest.mark.parametrize("lengths", [None, [2, 0, 7, 5, 7, 1]], ids=["full", "ragged"])(test)
    return pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())(test)


def six_rows(kind: str, dtype: str, options: dict[str, bool], lengths: list[int] | None, backend: Backend) -> Problem:
    """The problem of such a test: smaller where an interpreter runs it."""
    T, I, H = (4, 3, 9) if backend.name == "cuda-emulated" else (7, 9, 21)
    return Problem(kind, T, 6, I, H, dtype=dtype, lengths=lengths and [min(n, T) for n in lengths], **options)


every_size = pytest.mark.parametrize(
    ("kind", "backend", "sizes"),
    [_row(sizes, kind=kind, backend=backend) for kind, backend in _PLACES for sizes in _sizes(kind, backend)],
    indirect=["backend"],
)


@st.composite
def small_problems(draw: st.DrawFn, cell: str, dtypes: Collection[str]) -> Problem:
    """Problems of a cell with any sizes, lengths and options of a layer."""
    T, B = (draw(st.integers(0, 9)) for _ in range(2))
    I, H = (draw(st.integers(1, 40)) for _ in range(2))
    dtype = draw(st.sampled_from(sorted(dtypes)))
    options = draw(st.sampled_from(sorted(LAYERS)))
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    return Problem(cell, T, B, I, H, dtype=dtype, lengths=lengths, **LAYERS[options])
