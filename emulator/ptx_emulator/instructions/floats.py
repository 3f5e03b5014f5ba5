"""Floating-point arithmetic, exactly rounded; approximations are off by a random part of their documented error."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .integers import COMPARISONS, comparison
from .semantics import Semantics, opcode, semantics

Floats = Any  # arrays (n,) or (1,)
SMALLEST_NORMAL = np.float32(2.0**-126)
# Of the exact result, as the PTX ISA documents it (section "Floating-Point Instructions"), before it is rounded; one ulp is at
# most 2^-23: ex2 is at most 2 ulp, rcp at most 1 from the rounded result
RELATIVE_ERROR = {"tanh": 2.0**-10.987, "ex2": 2.0**-22, "lg2": 2.0**-22, "rcp": 2.0**-23, "rsqrt": 2.0**-22.9}
RELATIVE_ERROR |= {"sqrt": 2.0**-23, "div": 2.0**-22, "sin": 2.0**-20.5, "cos": 2.0**-20.5}
HALF_RELATIVE_ERROR = {"tanh": 2.0**-10.987, "ex2": 2.0**-9.9}
EXACT: dict[str, Callable[[Floats], Floats]] = {
    "tanh": np.tanh,
    "ex2": np.exp2,
    "lg2": np.log2,
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
}


def flush(x: Floats) -> Floats:
    """.ftz: subnormal float32 numbers count as zeros of their sign."""
    small = np.abs(x) < SMALLEST_NORMAL
    return np.where(small, np.copysign(np.float32(0), x), x) if small.any() else x


def _same(x: Floats) -> Floats:
    return x


def _saturate(x: Floats) -> Floats:
    """.sat: clamped to [0, 1], NaN and -0 give +0."""
    return np.where(x > 0, np.minimum(x, x.dtype.type(1)), x.dtype.type(0))


def finish(ftz: Any, sat: Any) -> Callable[[Floats], Floats]:
    if ftz and sat:
        return lambda x: _saturate(flush(x))
    return flush if ftz else _saturate if sat else _same


@opcode(r"(?P<op>add|sub|mul)(\.rn)?(?P<ftz>\.ftz)?(?P<sat>\.sat)?\.(?P<type>f16|f32|f64)")
def _arithmetic(m: re.Match[str]) -> Semantics:
    kind = m["type"]
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[m["op"]]
    if not m["ftz"] and not m["sat"]:
        return Semantics(function, (kind,), (kind, kind))
    start, end = finish(m["ftz"], None), finish(m["ftz"], m["sat"])
    return Semantics(lambda a, b: end(function(start(a), start(b))), (kind,), (kind, kind))


@opcode(r"fma\.(?P<round>rn|rz|rm|rp)(?P<ftz>\.ftz)?(?P<sat>\.sat)?\.(?P<type>f16|f32|f64)")
def _fma(m: re.Match[str]) -> Semantics:
    kind, mode = m["type"], m["round"]
    if kind == "f64" and mode != "rn":
        raise NotImplementedError(f"fma.{mode}.f64")
    multiply_add = fused_double if kind == "f64" else fused_nearest if mode == "rn" else _fused_directed(mode)
    if not m["ftz"] and not m["sat"]:
        return Semantics(multiply_add, (kind,), (kind,) * 3)
    start, end = finish(m["ftz"], None), finish(m["ftz"], m["sat"])
    return Semantics(lambda a, b, c: end(multiply_add(start(a), start(b), start(c))), (kind,), (kind,) * 3)


@opcode(r"mad(\.rn)?(?P<ftz>\.ftz)?(?P<sat>\.sat)?\.(?P<type>f32|f64)")
def _mad(m: re.Match[str]) -> Semantics:
    return semantics(m[0].replace("mad.rn", "mad").replace("mad", "fma.rn"))


def fused_nearest(a: Floats, b: Floats, c: Floats) -> Floats:
    """float32 or float16. In float64 the product is exact, the sum nearly: the few results that may round twice are redone."""
    total = np.multiply(a, b, dtype=np.float64) + c
    result = total.astype(a.dtype)
    lost = 29 if a.dtype == np.float32 else 42
    halfway = (total.view(np.int64) & ((1 << lost) - 1)) == 1 << (lost - 1)
    smallest = np.finfo(a.dtype).smallest_normal
    doubtful = halfway | ((np.abs(total) < 2 * smallest) & (total != 0))
    return _to_odd(a, b, c).astype(a.dtype) if doubtful.any() else result


def _to_odd(a: Floats, b: Floats, c: Floats) -> Floats:
    """a b + c in float64, rounded to odd where it is not exact: rounding that once more to fewer bits is right in any mode."""
    product, c = np.multiply(a, b, dtype=np.float64), c.astype(np.float64)
    total = product + c
    other = total - product
    error = (product - (total - other)) + (c - other)
    even = (total.view(np.int64) & 1) == 0
    nudge = even & (error != 0) & np.isfinite(total)
    return np.where(nudge, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)


def _fused_directed(mode: str) -> Callable[[Floats, Floats, Floats], Floats]:
    def multiply_add(a: Floats, b: Floats, c: Floats) -> Floats:
        total = _to_odd(a, b, c)
        return narrowed(total, a.dtype, mode)

    return multiply_add


def narrowed(x: Floats, dtype: Any, mode: str) -> Floats:
    """float64 to a smaller type in a rounding mode."""
    near = x.astype(dtype)
    back = near.astype(x.dtype)
    inf, zero = dtype.type(np.inf), dtype.type(0)
    if mode == "rm":
        return np.where(back > x, np.nextafter(near, -inf), near)
    if mode == "rp":
        return np.where(back < x, np.nextafter(near, inf), near)
    if mode == "rz":
        return np.where(np.abs(back) > np.abs(x), np.nextafter(near, zero), near)
    return near


def fused_double(a: Floats, b: Floats, c: Floats) -> Floats:
    """float64: Boldo and Melquiond's, by error-free sums and one rounding to odd; plain where Dekker's split overflows."""
    high, low = _two_product(a, b)
    top, rest = _two_sum(c, low)
    head, tail = _two_sum(high, top)
    odd, error = _two_sum(tail, rest)
    nudge = ((odd.view(np.int64) & 1) == 0) & (error != 0)
    odd = np.where(nudge, np.nextafter(odd, np.where(error > 0, np.inf, -np.inf)), odd)
    result = head + odd
    plain = a * b + c
    return np.where(np.isfinite(result), result, plain)


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    product = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Floats) -> tuple[Floats, Floats]:
    scaled = a * 134217729.0  # 2^27 + 1
    high = scaled - (scaled - a)
    return high, a - high


@opcode(r"div\.(?P<how>rn|full|approx)(?P<ftz>\.ftz)?\.(?P<type>f32|f64)")
def _divide(m: re.Match[str]) -> Semantics:
    kind, start = m["type"], finish(m["ftz"], None)
    if m["how"] == "rn":
        return Semantics(lambda a, b: start(np.divide(start(a), start(b))), (kind,), (kind, kind))

    def divide(group: Any, a: Floats, b: Floats) -> Floats:
        exact = np.divide(start(a), start(b), dtype=np.float64)
        return start(group.noisy(exact, RELATIVE_ERROR["div"], exact).astype(a.dtype))

    return Semantics(divide, (kind,), (kind, kind), group=True)


@opcode(r"(?P<op>rcp|sqrt)\.rn(?P<ftz>\.ftz)?\.(?P<type>f32|f64)")
def _exact_function(m: re.Match[str]) -> Semantics:
    function, start, kind = EXACT[m["op"]], finish(m["ftz"], None), m["type"]
    return Semantics(lambda a: start(function(start(a))), (kind,), (kind,))


@opcode(r"(?P<op>ex2|lg2|rcp|rsqrt|sqrt|sin|cos)\.approx(?P<ftz>\.ftz)?\.f32|(?P<tanh>tanh)\.approx\.f32")
def _approximation(m: re.Match[str]) -> Semantics:
    """ex2 of an integer is exact, as on the hardware: libdevice relies on it."""
    op = m["op"] or m["tanh"]
    function, error, start = EXACT[op], RELATIVE_ERROR[op], finish(m["ftz"], None)

    def approximate(group: Any, a: Floats) -> Floats:
        a = start(a)
        exact = function(a.astype(np.float64))
        noisy = group.noisy(exact, error, a)
        if op == "ex2":
            noisy = np.where(a == np.rint(a), exact, noisy)
        elif op == "tanh":
            noisy = np.clip(noisy, -1, 1)
        return start(noisy.astype(np.float32))

    return Semantics(approximate, ("f32",), ("f32",), group=True)


@opcode(r"(?P<op>tanh|ex2)\.approx\.f16")
def _half_approximation(m: re.Match[str]) -> Semantics:
    function, error = EXACT[m["op"]], HALF_RELATIVE_ERROR[m["op"]]

    def approximate(group: Any, a: Floats) -> Floats:
        return group.noisy(function(a.astype(np.float64)), error, a).astype(np.float16)

    return Semantics(approximate, ("f16",), ("f16",), group=True)


@opcode(r"rcp\.approx\.ftz\.f64")
def _gross_reciprocal(m: re.Match[str]) -> Semantics:
    """The reciprocal of the upper 32 bits; the lower 32 bits of the result are 0."""

    def reciprocal(a: Floats) -> Floats:
        upper = (a.view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)
        upper = np.where(np.abs(upper) < np.finfo(np.float64).smallest_normal, np.copysign(0.0, upper), upper)
        return (np.reciprocal(upper).view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)

    return Semantics(reciprocal, ("f64",), ("f64",))


@opcode(r"(?P<op>neg|abs)(?P<ftz>\.ftz)?\.(?P<type>f16|f32|f64)")
def _sign(m: re.Match[str]) -> Semantics:
    function, start, kind = {"neg": np.negative, "abs": np.abs}[m["op"]], finish(m["ftz"], None), m["type"]
    return Semantics(lambda a: function(start(a)), (kind,), (kind,))


@opcode(r"copysign\.(?P<type>f32|f64)")
def _copysign(m: re.Match[str]) -> Semantics:
    return Semantics(lambda sign, a: np.copysign(a, sign), (m["type"],), (m["type"],) * 2)


@opcode(r"(?P<op>min|max)(?P<ftz>\.ftz)?(?P<nan>\.NaN)?\.(?P<type>f16|f32|f64)")
def _extreme(m: re.Match[str]) -> Semantics:
    """The minimum or maximum; of a number and NaN the number, or NaN with .NaN; -0 is below +0."""
    kind, start, low = m["type"], finish(m["ftz"], None), m["op"] == "min"
    choose = (np.minimum if low else np.maximum) if m["nan"] else (np.fmin if low else np.fmax)

    def extreme(a: Floats, b: Floats) -> Floats:
        a, b = start(a), start(b)
        zeros = (a == 0) & (b == 0)
        negative = np.signbit(a) | np.signbit(b) if low else np.signbit(a) & np.signbit(b)
        return np.where(zeros, np.copysign(a.dtype.type(0), np.where(negative, -1, 1)).astype(a.dtype), choose(a, b))

    return Semantics(extreme, (kind,), (kind, kind))


@opcode(
    r"setp\.(?P<compare>eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan)(\.(?P<with>and|or|xor))?(?P<ftz>\.ftz)?\.(?P<type>f16|f32|f64)"
)
def _compare(m: re.Match[str]) -> Semantics:
    """With a NaN every ordered comparison is false, ne too; with a final u it is true."""
    name, start = m["compare"], finish(m["ftz"], None)

    def compare(a: Floats, b: Floats) -> Floats:
        unordered = np.isnan(a) | np.isnan(b)
        if name in ("num", "nan"):
            return unordered if name == "nan" else ~unordered
        result = COMPARISONS[name[:2]](start(a), start(b))
        return result | unordered if len(name) == 3 else result & ~unordered

    return comparison(compare, m["with"], m["type"])


@opcode(r"(?P<op>add|sub|mul|fma)(\.rn)?\.f16x2")
def _packed(m: re.Match[str]) -> Semantics:
    """Two float16 in a register."""
    count = 3 if m["op"] == "fma" else 2
    functions: dict[str, Callable[..., Floats]] = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "fma": fused_nearest}
    function = functions[m["op"]]

    def halves(*sources: Floats) -> Floats:
        split = [np.ascontiguousarray(s).view(np.float16).reshape(-1, 2) for s in sources]
        low, high = (function(*(np.ascontiguousarray(s[:, k]) for s in split)) for k in (0, 1))
        return low.view(np.uint16).astype(np.uint32) | high.view(np.uint16).astype(np.uint32) << np.uint32(16)

    return Semantics(halves, ("f16x2",), ("f16x2",) * count)
