"""The PTX interpreter's arithmetic, one instruction at a time, against Python's integers, Fraction and NumPy."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ptx_emulator.errors import UnknownPTX
from ptx_emulator.instructions import semantics
from ptx_emulator.snippets import evaluate

MODES = ("rn", "rz", "rm", "rp")
U32 = np.array([0, 1, 2, 31, 32, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF], np.uint32)
F32 = np.array([0.0, -0.0, 1.0, -1.5, np.nan, np.inf, -np.inf, 1e-40, 3e38], np.float32)


def pairs(values: Any) -> tuple[Any, Any]:
    """Each with each."""
    first, second = np.meshgrid(values, values)
    return first.ravel(), second.ravel()


def random_floats(count: int, seed: int, spread: int = 12) -> Any:
    """float32 of near magnitudes, so that sums cancel and round; some are halfway cases of few bits."""
    rng = np.random.default_rng(seed)
    fine = rng.standard_normal(count) * 2.0 ** rng.integers(-spread, spread, count)
    coarse = rng.integers(-64, 64, count) * 2.0 ** rng.integers(-spread, spread, count)
    return np.where(rng.random(count) < 0.5, fine, coarse).astype(np.float32)


def rounded(x: Fraction, mode: str, mantissa: int = 24, smallest: int = -149) -> Fraction:
    """To a binary float of `mantissa` bits whose least subnormal is 2^smallest."""
    if x == 0:
        return x
    exponent = max(abs(x).numerator.bit_length() - abs(x).denominator.bit_length() - mantissa - 1, smallest)
    while abs(x) >= Fraction(2) ** (exponent + mantissa):
        exponent += 1
    unit = Fraction(2) ** exponent
    steps = x / unit
    whole = {"rn": round, "rz": int, "rm": lambda s: s.__floor__(), "rp": lambda s: s.__ceil__()}[mode](steps)
    return whole * unit


@pytest.mark.parametrize("mode", MODES)
def test_fma_is_exact_and_rounds_as_named(mode: str) -> None:
    a, b, c = (random_floats(3000, seed) for seed in (1, 2, 3))
    c[::3] = -(a[::3].astype(np.float64) * b[::3]).astype(np.float32)  # all but the rounding error cancels
    got = evaluate(f"fma.{mode}.f32", "f32", ("f32", a), ("f32", b), ("f32", c))
    for x, y, z, r in zip(a, b, c, got, strict=True):
        assert Fraction(float(r)) == rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), mode)


@pytest.mark.parametrize("mode", MODES)
def test_fma_of_numbers_far_apart(mode: str) -> None:
    """Halfway between two floats, or a float, and a little more or less, which a sum in float64 loses."""
    halfway, tiny = (24929.0, 673 * 2.0**-24), 2.0**-60  # 24929 * 673 = 2^24 + 1
    cases = [(*halfway, tiny), (*halfway, -tiny), (*halfway, 0), (1, 1, tiny), (1, 1, -tiny), (-1, 1, tiny), (-1, 1, -tiny)]
    a, b, c = np.array(cases, np.float32).T
    got = evaluate(f"fma.{mode}.f32", "f32", ("f32", a), ("f32", b), ("f32", c))
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in cases]
    assert [Fraction(float(r)) for r in got] == [rounded(x, mode) for x in exact]


def test_fma_of_subnormal_results_rounds_once() -> None:
    rng = np.random.default_rng(4)
    a = (rng.standard_normal(2000) * 2.0**-70).astype(np.float32)
    b = (rng.standard_normal(2000) * 2.0**-70).astype(np.float32)
    c = (rng.integers(-4096, 4096, 2000) * 2.0**-149).astype(np.float32)
    got = evaluate("fma.rn.f32", "f32", ("f32", a), ("f32", b), ("f32", c))
    for x, y, z, r in zip(a, b, c, got, strict=True):
        assert Fraction(float(r)) == rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), "rn")


def test_double_fma_is_exact() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 2000))
    c = -(a * b) + np.where(rng.random(2000) < 0.5, 0, rng.standard_normal(2000))
    got = evaluate("fma.rn.f64", "f64", ("f64", a), ("f64", b), ("f64", c))
    for x, y, z, r in zip(a, b, c, got, strict=True):
        assert Fraction(float(r)) == rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), "rn", 53, -1074)


def test_half_fma_is_exact() -> None:
    a, b, c = (random_floats(2000, seed, 1).astype(np.float16) for seed in (6, 7, 8))
    got = evaluate("fma.rn.f16", "f16", ("f16", a), ("f16", b), ("f16", c))
    for x, y, z, r in zip(a, b, c, got, strict=True):
        assert Fraction(float(r)) == rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), "rn", 11, -24)


def test_float_sums_and_products_are_numpys() -> None:
    a, b = pairs(F32)
    with np.errstate(all="ignore"):
        expected = {"add": a + b, "sub": a - b, "mul": a * b, "div": a / b}
    for op, values in expected.items():
        got = evaluate(f"{op}.rn.f32", "f32", ("f32", a), ("f32", b))
        np.testing.assert_array_equal(got, values)
        assert (np.signbit(got) == np.signbit(values))[~np.isnan(values)].all()


def test_ftz_makes_zeros_of_subnormals() -> None:
    small = np.array([1e-40, -1e-40, 2.0**-126], np.float32)
    got = evaluate("add.ftz.f32", "f32", ("f32", small), ("f32", np.zeros(3, np.float32)))
    np.testing.assert_array_equal(got, np.array([0, 0, 2.0**-126], np.float32))
    np.testing.assert_array_equal(evaluate("mul.f32", "f32", ("f32", small), ("f32", np.ones(3, np.float32))), small)


def test_saturation_gives_positive_zero_for_nan_and_negatives() -> None:
    values = np.array([-0.0, -3, 0.25, 7, np.nan, np.inf], np.float32)
    for opcode in ("cvt.sat.f32.f32", "cvt.ftz.sat.f32.f32"):
        got = evaluate(opcode, "f32", ("f32", values))
        np.testing.assert_array_equal(got, np.array([0, 0, 0.25, 1, 0, 1], np.float32))
        assert not np.signbit(got).any()


def test_comparisons_with_nan() -> None:
    a, b = pairs(np.array([0.0, 1.0, np.nan], np.float32))
    nan = np.isnan(a) | np.isnan(b)
    plain = {"eq": a == b, "ne": (a != b) & ~nan, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}
    for name, expected in plain.items():
        np.testing.assert_array_equal(evaluate(f"setp.{name}.f32", "pred", ("f32", a), ("f32", b)), expected)
        np.testing.assert_array_equal(evaluate(f"setp.{name}u.f32", "pred", ("f32", a), ("f32", b)), expected | nan)
    np.testing.assert_array_equal(evaluate("setp.num.f32", "pred", ("f32", a), ("f32", b)), ~nan)
    np.testing.assert_array_equal(evaluate("setp.nan.f32", "pred", ("f32", a), ("f32", b)), nan)


def test_a_comparison_joins_a_predicate() -> None:
    a, b = pairs(np.arange(3, dtype=np.uint32))
    p = (np.arange(9) % 2).astype(np.uint32)
    got = evaluate("setp.lt.and.u32", "pred", ("u32", a), ("u32", b), ("pred", p))
    np.testing.assert_array_equal(got, (a < b) & (p == 1))


def test_minimum_and_maximum() -> None:
    a, b = np.array([np.nan, 1, -0.0, np.nan], np.float32), np.array([2, np.nan, 0.0, np.nan], np.float32)
    low = evaluate("min.f32", "f32", ("f32", a), ("f32", b))
    np.testing.assert_array_equal(low, np.array([2, 1, 0, np.nan], np.float32))
    assert np.signbit(low[2])
    assert not np.signbit(evaluate("max.f32", "f32", ("f32", a), ("f32", b))[2])
    np.testing.assert_array_equal(evaluate("max.NaN.f32", "f32", ("f32", a), ("f32", b)), [np.nan, np.nan, 0, np.nan])


def test_shifts_by_the_width_and_more() -> None:
    value = np.full(5, 0x80000183, np.uint32)
    by = np.array([0, 1, 31, 32, 200], np.uint32)
    shl = [(0x80000183 << int(n)) & 0xFFFFFFFF if n < 32 else 0 for n in by]
    np.testing.assert_array_equal(evaluate("shl.b32", "b32", ("b32", value), ("u32", by)), shl)
    np.testing.assert_array_equal(evaluate("shr.u32", "u32", ("u32", value), ("u32", by)), [0x80000183 >> int(n) for n in by])
    negative = int(value.view(np.int32)[0])
    got = evaluate("shr.s32", "s32", ("s32", value.view(np.int32)), ("u32", by))
    np.testing.assert_array_equal(got, [negative >> int(n) for n in by])


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_integer_arithmetic_wraps(kind: str) -> None:
    bits = int(kind[1:])
    dtype = np.dtype(f"{'i' if kind[0] == 's' else 'u'}{bits // 8}")
    values = (U32.astype(np.uint64) * np.uint64(1 if bits == 32 else 0x100000001)).astype(f"u{bits // 8}").view(dtype)
    a, b = pairs(values)

    def wrapped(exact: list[int]) -> Any:
        return np.array([x & ((1 << bits) - 1) for x in exact], f"u{bits // 8}").view(dtype)

    x, y = [int(v) for v in a], [int(v) for v in b]
    given = ((kind, a), (kind, b))
    expected = {
        f"add.{kind}": [p + q for p, q in zip(x, y, strict=True)],
        f"sub.{kind}": [p - q for p, q in zip(x, y, strict=True)],
        f"mul.lo.{kind}": [p * q for p, q in zip(x, y, strict=True)],
        f"mul.hi.{kind}": [(p * q) >> bits for p, q in zip(x, y, strict=True)],
    }
    for opcode, exact in expected.items():
        np.testing.assert_array_equal(evaluate(opcode, kind, *given), wrapped(exact), opcode)
    nonzero = b != 0
    quotient = [abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1) if q else 0 for p, q in zip(x, y, strict=True)]
    rest = [p - q * s for p, q, s in zip(x, y, quotient, strict=True)]
    np.testing.assert_array_equal(evaluate(f"div.{kind}", kind, *given)[nonzero], wrapped(quotient)[nonzero])
    np.testing.assert_array_equal(evaluate(f"rem.{kind}", kind, *given)[nonzero], wrapped(rest)[nonzero])


def test_wide_products_and_sums() -> None:
    a, b = pairs(U32)
    c = np.arange(len(a), dtype=np.uint64)
    np.testing.assert_array_equal(evaluate("mul.wide.u32", "u64", ("u32", a), ("u32", b)), a.astype(np.uint64) * b)
    got = evaluate("mad.wide.u32", "u64", ("u32", a), ("u32", b), ("u64", c))
    np.testing.assert_array_equal(got, a.astype(np.uint64) * b + c)
    signed = evaluate("mul.wide.s32", "s64", ("s32", a.view(np.int32)), ("s32", b.view(np.int32)))
    np.testing.assert_array_equal(signed, a.view(np.int32).astype(np.int64) * b.view(np.int32))


def test_bits() -> None:
    given = ("b32", U32)
    np.testing.assert_array_equal(evaluate("popc.b32", "u32", given), [int(v).bit_count() for v in U32])
    np.testing.assert_array_equal(evaluate("clz.b32", "u32", given), [32 - int(v).bit_length() for v in U32])
    np.testing.assert_array_equal(evaluate("brev.b32", "b32", given), [int(f"{int(v):032b}"[::-1], 2) for v in U32])
    a, b = pairs(U32)
    got = evaluate("lop3.b32", "b32", ("b32", a), ("b32", b), ("b32", a[::-1]), immediate=", 0x96")
    np.testing.assert_array_equal(got, a ^ b ^ a[::-1])
    low, high, by = np.full(4, 0x01234567, np.uint32), np.full(4, 0x89ABCDEF, np.uint32), np.array([0, 8, 32, 40], np.uint32)
    wide = 0x89ABCDEF01234567
    got = evaluate("shf.l.wrap.b32", "b32", ("b32", low), ("b32", high), ("u32", by))
    np.testing.assert_array_equal(got, [(wide << (int(n) & 31)) >> 32 & 0xFFFFFFFF for n in by])
    got = evaluate("shf.r.clamp.b32", "b32", ("b32", low), ("b32", high), ("u32", by))
    np.testing.assert_array_equal(got, [(wide >> min(int(n), 32)) & 0xFFFFFFFF for n in by])


def test_bit_fields() -> None:
    value = np.full(5, 0xFFFF0A50, np.uint32)
    at, length = np.array([4, 8, 16, 28, 0], np.uint32), np.array([4, 4, 16, 8, 0], np.uint32)
    unsigned = [(0xFFFF0A50 >> int(p)) & ((1 << int(n)) - 1) for p, n in zip(at, length, strict=True)]
    np.testing.assert_array_equal(evaluate("bfe.u32", "u32", ("u32", value), ("u32", at), ("u32", length)), unsigned)
    signed = evaluate("bfe.s32", "s32", ("s32", value.view(np.int32)), ("u32", at), ("u32", length))
    np.testing.assert_array_equal(signed, [5, -6, -1, -1, 0])
    got = evaluate("bfi.b32", "b32", ("b32", np.full(5, 0xAB, np.uint32)), ("b32", value), ("u32", at), ("u32", length))
    np.testing.assert_array_equal(got, [0xFFFF0AB0, 0xFFFF0B50, 0x00AB0A50, 0xBFFF0A50, 0xFFFF0A50])


def test_bytes_are_permuted() -> None:
    a, b = np.full(3, 0x33221180, np.uint32), np.full(3, 0x77665544, np.uint32)
    got = evaluate("prmt.b32", "b32", ("b32", a), ("b32", b), ("b32", np.array([0x3210, 0x7654, 0x0008], np.uint32)))
    np.testing.assert_array_equal(got, [0x33221180, 0x77665544, 0x808080FF])


def test_conversions_between_integers() -> None:
    values = np.array([0, 1, 127, 128, 255, 256, 65535, 0x80000000, 0xFFFFFFFF], np.uint32)
    np.testing.assert_array_equal(evaluate("cvt.u16.u32", "u16", ("u32", values)), values.astype(np.uint16))
    np.testing.assert_array_equal(evaluate("cvt.s64.s32", "s64", ("s32", values.view(np.int32))), values.view(np.int32))
    np.testing.assert_array_equal(evaluate("cvt.u64.u32", "u64", ("u32", values)), values)
    got = evaluate("cvt.sat.s16.s32", "s16", ("s32", values.view(np.int32)))
    np.testing.assert_array_equal(got, np.clip(values.view(np.int32), -32768, 32767))


def test_floats_become_integers_clamped() -> None:
    values = np.array([0.5, 1.5, -1.5, 2.5, -0.5, 3e9, -3e9, np.inf, np.nan], np.float32)
    inside = np.clip(np.nan_to_num(values, posinf=1e30), -(2.0**31), 2.0**31 - 1)
    for mode, function in {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}.items():
        got = evaluate(f"cvt.{mode}.s32.f32", "s32", ("f32", values))
        np.testing.assert_array_equal(got, np.minimum(function(inside.astype(np.float64)), 2**31 - 1).astype(np.int32), mode)
    np.testing.assert_array_equal(
        evaluate("cvt.rzi.u32.f32", "u32", ("f32", np.array([-5, np.nan, 5e9], np.float32))), [0, 0, 2**32 - 1]
    )
    assert evaluate("cvt.rzi.s64.f32", "s64", ("f32", np.array([np.nan], np.float32)))[0] == -(2**63)


@pytest.mark.parametrize("mode", MODES)
def test_doubles_become_floats_in_each_mode(mode: str) -> None:
    values = np.random.default_rng(9).standard_normal(500) * 2.0 ** np.random.default_rng(10).integers(-140, 30, 500)
    got = evaluate(f"cvt.{mode}.f32.f64", "f32", ("f64", values))
    assert [Fraction(float(r)) for r in got] == [rounded(Fraction(float(v)), mode) for v in values]


def test_halves() -> None:
    values = np.array([0, 1.0005, -2.3, 70000, 1e-8, np.inf], np.float32)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    np.testing.assert_array_equal(evaluate("cvt.rn.f16.f32", "f16", ("f32", values)), half)
    np.testing.assert_array_equal(evaluate("cvt.f32.f16", "f32", ("f16", half)), half.astype(np.float32))
    both = evaluate("cvt.rn.f16x2.f32", "f16x2", ("f32", values), ("f32", values[::-1].copy()))
    np.testing.assert_array_equal(both.view(np.float16).reshape(-1, 2), np.stack([half[::-1], half], 1))
    total = evaluate("add.f16x2", "f16x2", ("f16x2", both), ("f16x2", both))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(total.view(np.float16), both.view(np.float16) * np.float16(2))


def test_tf32_keeps_ten_bits() -> None:
    one, step = 1.0, 2.0**-10
    values = np.array([one + step / 2, one + step * 1.5, one + step * 0.49, -(one + step / 2), np.inf], np.float32)
    away = evaluate("cvt.rna.tf32.f32", "b32", ("f32", values)).view(np.float32)
    np.testing.assert_array_equal(away, np.array([one + step, one + 2 * step, one, -(one + step), np.inf], np.float32))
    even = evaluate("cvt.rn.tf32.f32", "b32", ("f32", values)).view(np.float32)
    np.testing.assert_array_equal(even, np.array([one, one + 2 * step, one, -one, np.inf], np.float32))


APPROXIMATIONS = {"tanh.approx.f32": (np.tanh, 2.0**-10.9), "ex2.approx.ftz.f32": (np.exp2, 2.0**-21.9)}
APPROXIMATIONS |= {"rcp.approx.ftz.f32": (np.reciprocal, 2.0**-22.9), "lg2.approx.f32": (np.log2, 2.0**-21.9)}


@pytest.mark.parametrize("opcode", APPROXIMATIONS)
def test_approximations_err_but_within_their_bounds(opcode: str) -> None:
    function, bound = APPROXIMATIONS[opcode]
    values = np.random.default_rng(11).uniform(0.1, 5, 2000).astype(np.float32)
    exact = function(values.astype(np.float64))
    error = np.abs(evaluate(opcode, "f32", ("f32", values), noise=True) - exact) / np.abs(exact)
    assert bound / 4 < error.max() <= bound + 2.0**-24
    silent = np.abs(evaluate(opcode, "f32", ("f32", values), noise=False) - exact) / np.abs(exact)
    assert silent.max() <= 2.0**-24


def test_powers_of_two_are_exact() -> None:
    values = np.arange(-126, 128).astype(np.float32)
    np.testing.assert_array_equal(
        evaluate("ex2.approx.ftz.f32", "f32", ("f32", values), noise=True), np.exp2(values.astype(np.float64))
    )


UNKNOWN = ["add.f32x2", "fma.rn.relu.f32", "add.rz.f32", "ld.global.v3.f32", "setp.lt.f32.f64"]
UNKNOWN += ["mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64", "ld.acquire.cta.global.u32", "red.release.cta.global.add.u32"]


@pytest.mark.parametrize("opcode", UNKNOWN)
def test_what_is_not_known_raises(opcode: str) -> None:
    with pytest.raises(UnknownPTX, match="opcode"):
        semantics(opcode)


def test_a_comparison_gives_its_opposite_too() -> None:
    a, b = pairs(np.arange(3, dtype=np.uint32))
    np.testing.assert_array_equal(evaluate("setp.lt.u32 %p|%q8,", "pred", ("u32", a), ("u32", b)), a < b)
    np.testing.assert_array_equal(evaluate("setp.lt.u32 %q8|%p,", "pred", ("u32", a), ("u32", b)), a >= b)
