"""The one matrix product, every form of it, against one in more digits; and the bits of a row, whatever is beside it."""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import Floats

from gpurnn_kernels.cpu.codegen.aligned import aligned
from gpurnn_kernels.cpu.codegen.compile import kernel_address
from gpurnn_kernels.cpu.codegen.target import target
from gpurnn_kernels.cpu.products.microkernel import WIDTHS, tiles

FORMS = {"near": tiles("float"), "far": tiles("float", prefetch=True), "transposed": tiles("float", transposed=True)}
DEPTHS = (0, 1, 3, 4, 21, 257, 1101)  # the last ones in two segments and in four
ROWS, PANELS = 27, 9  # more than two tiles of any height, and two groups of panels


def on_a_line(array: Floats) -> Floats:
    """A copy that starts where a cache line does."""
    out = aligned(array.size, array.dtype)
    out[:] = array.ravel()
    return out.reshape(array.shape)


def run_kernel(form: str, columns: int, dtype: np.dtype[Any], *words: int) -> None:
    """Runs the product of panels of so many columns."""
    width = columns // target().lanes(dtype.itemsize)
    number = ctypes.c_float if dtype.itemsize == 4 else ctypes.c_double
    kernel = ctypes.CFUNCTYPE(None, number, ctypes.c_int64)(kernel_address(FORMS[form][width], dtype.name))
    given = np.array(words, np.int64)
    kernel(0.0, given.ctypes.data)


def product(form: str, a: Floats, w: Floats, init: Floats) -> Floats:
    """init (R, P, V) + a (R, K) @ w (P, K, V), by the kernel."""
    panels, depth, columns = w.shape
    given = on_a_line(a.T if form == "transposed" else a)
    weights, start, out = on_a_line(w), on_a_line(init), on_a_line(np.full_like(init, np.nan))
    strides = (start.strides[0], start.strides[1])
    run_kernel(
        *(form, columns, a.dtype, len(a), given.ctypes.data, given.strides[0]),
        *(panels, weights.ctypes.data, weights.strides[0], depth),
        *(start.ctypes.data, *strides, out.ctypes.data, *strides),
    )
    return out


def problems(form: str, width: int, dtype: str) -> Iterator[tuple[Floats, Floats, Floats]]:
    rng = np.random.default_rng(width)
    columns = width * target().lanes(np.dtype(dtype).itemsize)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    for depth in DEPTHS:
        yield draw(ROWS, depth), draw(PANELS, depth, columns), draw(ROWS, PANELS, columns)


every_form = pytest.mark.parametrize("form", FORMS)
every_width = pytest.mark.parametrize("width", WIDTHS)
every_type = pytest.mark.parametrize("dtype", ["float32", "float64"])


@every_form
@every_width
@every_type
def test_product(form: str, width: int, dtype: str) -> None:
    for a, w, init in problems(form, width, dtype):
        wide = [array.astype(np.longdouble) for array in (a, w, init)]
        exact, size = (part[2] + np.einsum("rk,pkv->rpv", *part[:2]) for part in (wide, [*map(np.abs, wide)]))
        # each sum is rounded once for each k
        assert np.all(np.abs(product(form, a, w, init) - exact) <= (a.shape[1] + 1) * np.finfo(dtype).eps * size)


@every_form
@every_width
@every_type
def test_bits_depend_on_nothing_beside_them(form: str, width: int, dtype: str) -> None:
    for a, w, init in problems(form, width, dtype):
        whole = product(form, a, w, init)
        for rows in range(1, ROWS + 1):
            assert np.array_equal(product(form, a[:rows], w, init[:rows]), whole[:rows])
        for panels in range(1, PANELS):
            few = product(form, a[:2], w[:panels], init[:2, :panels])
            assert np.array_equal(few, whole[:2, :panels])


@every_width
@every_type
def test_all_forms_give_the_same_bits(width: int, dtype: str) -> None:
    for a, w, init in problems("near", width, dtype):
        near = product("near", a, w, init)
        for form in FORMS:
            assert np.array_equal(product(form, a, w, init), near)


@every_width
def test_a_panel_may_be_added_to_in_place_and_from_the_last_one_on(width: int) -> None:
    """A step calls it so: strides may be negative, all rows may start from one, out may be init."""
    a, w, init = list(problems("near", width, "float32"))[-1]
    a, w, out = on_a_line(a), on_a_line(w), on_a_line(init)
    kernel = "near", w.shape[2], a.dtype
    rows = ROWS, a.ctypes.data, a.strides[0]
    last = PANELS - 1
    w_at, out_at = w.ctypes.data + last * w.strides[0], out.ctypes.data + last * out.strides[1]
    place = out_at, out.strides[0], -out.strides[1]
    run_kernel(*kernel, *rows, PANELS, w_at, -w.strides[0], w.shape[1], *place, *place)
    assert np.array_equal(out, product("near", a, w, init))
    bias = np.broadcast_to(init[:1], init.shape)
    expected = product("near", a, w, bias)
    start = on_a_line(init[0])
    place = out.ctypes.data, out.strides[0], out.strides[1]
    run_kernel(*kernel, *rows, PANELS, w.ctypes.data, w.strides[0], w.shape[1], start.ctypes.data, 0, start.strides[0], *place)
    assert np.array_equal(out, expected)
