"""The kernels that convert rows to a format, and the packed weights, against arithmetic in more digits."""

import ctypes

import numpy as np
import pytest
from helpers import Floats

from gpurnn_kernels.cpu.codegen.aligned import aligned_zeros
from gpurnn_kernels.cpu.codegen.compile import kernel_address
from gpurnn_kernels.cpu.codegen.target import LINE, target
from gpurnn_kernels.cpu.products.formats import FORMATS
from gpurnn_kernels.quantised import as_bf16, from_bf16, quantised

COUNTS = (1, 2, 3, 15, 16, 17, 64, 101)


def converted(format: str, rows: Floats) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """Rows (B, K) in a format: the bytes of each row, from its head on."""
    one = FORMATS[format]
    assert one.convert is not None
    stride = one.row_bytes(rows.shape[1], 4, target().vector_bytes)
    out = aligned_zeros(len(rows) * stride, np.dtype(np.uint8)).reshape(len(rows), stride)
    out[:] = 0xAA
    words = (out.ctypes.data + one.row_head, stride, rows.ctypes.data, rows.strides[0], len(rows), rows.shape[1])
    given = np.array(words, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_float, ctypes.c_int64)(kernel_address(one.convert, "float32"))(0.0, given.ctypes.data)
    return out


def bf16_rows(rows: Floats) -> Floats:
    """Rows as the kernel rounds them."""
    found = converted("bf16", rows)[:, LINE:]
    if target().bf16:
        return from_bf16(found.view(np.uint16)[:, : rows.shape[1]])
    return found.view(np.float32)[:, : rows.shape[1]]


def nearest_bf16(a: Floats) -> Floats:
    """The nearest numbers of 8 bits, to even; denormal numbers are zeros, too large ones infinite."""
    mantissa, exponent = np.frexp(a.astype(np.float64))
    found = np.ldexp(np.rint(mantissa * 256), exponent - 8)
    found = np.where(np.abs(found) >= 2.0**128, np.copysign(np.inf, a), found)
    return np.where(np.abs(a) < 2.0**-126, np.copysign(0.0, a), found).astype(np.float32)


def all_kinds_of_floats(rows: int, count: int) -> Floats:
    bits = np.random.default_rng(count).integers(0, 1 << 32, (rows, count), np.uint32)
    bits[0, : min(count, 8)] = [0, 1 << 31, 1, 0x007FFFFF, 0x00800000, 0x3F808000, 0x3F818000, 0x7F7FFFFF][:count]
    found = bits.view(np.float32)
    return np.where(np.isnan(found), np.float32(1), found)


@pytest.mark.parametrize("count", COUNTS)
def test_rounding_to_bf16(count: int) -> None:
    rows = all_kinds_of_floats(40, count)
    expected = nearest_bf16(rows)
    for found in (bf16_rows(rows), from_bf16(as_bf16(rows))):
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_what_is_not_finite_in_bf16() -> None:
    rows = np.array([[np.nan, -np.nan, np.inf, -np.inf]], np.float32)
    rows.view(np.uint32)[0, 0] = 0x7F800001  # a NaN whose high half is infinity's
    for found in (bf16_rows(rows), from_bf16(as_bf16(rows))):
        assert np.isnan(found[0, :2]).all()
        np.testing.assert_array_equal(found[0, 2:], rows[0, 2:])


@pytest.mark.parametrize("count", [1, 3, 15, 17, 101])
def test_the_last_word_of_bf16_is_filled_with_zero(count: int) -> None:
    """Something else could be a NaN, which a weight of zero would not take out."""
    found = converted("bf16", np.ones((3, count), np.float32))[:, LINE:]
    size = 2 if target().bf16 else 4
    assert np.all(found[:, size * count : size * (count + 1)] == 0)


@pytest.mark.parametrize("count", COUNTS)
def test_rows_of_bytes(count: int) -> None:
    rows = np.random.default_rng(count).standard_normal((40, count)).astype(np.float32)
    rows *= np.exp2(np.arange(-60, 60, 3, dtype=np.float32))[:, None]
    found = converted("int8", rows)
    largest = np.abs(rows).max(axis=1)
    np.testing.assert_array_equal(found[:, LINE - 4 : LINE].copy().view(np.float32)[:, 0], largest * np.float32(1 / 127))
    factors = (np.float32(127) / largest).astype(np.float64)
    expected = np.rint(rows.astype(np.float64) * factors[:, None]) + 128
    if target().fma:
        np.testing.assert_array_equal(found[:, LINE:][:, :count], expected)
    else:
        assert np.abs(found[:, LINE:][:, :count] - expected).max() <= 1


def test_scales_of_rows_that_are_not_finite() -> None:
    rows = np.ones((3, 20), np.float32)
    rows[0, 7], rows[1, 19], rows[2, 3] = np.nan, np.inf, -np.inf
    assert np.isnan(converted("int8", rows)[:, LINE - 4 : LINE].copy().view(np.float32)).all()


def test_packed_integers() -> None:
    matrix = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
    words = FORMATS["int8"].encoded(matrix)
    assert words.shape == (6, 2 + 2)
    bytes_ = words.view(np.int8)
    scales, starts = words[:, 0], words.view(np.int32)[:, 1]
    np.testing.assert_array_equal(scales, np.abs(matrix).max(axis=1) / np.float32(127))
    np.testing.assert_array_equal(bytes_[:, 8:15], np.rint(matrix / scales[:, None]))
    np.testing.assert_array_equal(bytes_[:, 15], 0)
    np.testing.assert_array_equal(starts, -128 * bytes_[:, 8:15].sum(axis=1, dtype=np.int32))
    np.testing.assert_array_equal(FORMATS["int8"].encoded(quantised(matrix)).view(np.int32), words.view(np.int32))


def test_weights_whose_scale_were_denormal_are_zeros() -> None:
    found = quantised(np.float32([[2.66e-43, -2.66e-43, 0], [1e-37, 0, 0]]))
    assert not found.values.any()
    np.testing.assert_array_equal(found.scales, 1)
