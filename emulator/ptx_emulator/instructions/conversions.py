"""cvt and cvta."""

import re
from typing import Any

import numpy as np

from .floats import finish, narrowed
from .semantics import DTYPES, Semantics, opcode

Numbers = Any  # arrays (n,) or (1,)
TO_INTEGRAL = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
INTEGER = r"[su](8|16|32|64)"
FLOAT = r"f16|f32|f64"


def _clamped(x: Numbers, dtype: Any) -> Numbers:
    """Integers: .sat."""
    limits, source = np.iinfo(dtype), np.iinfo(x.dtype)
    low, high = max(limits.min, source.min), min(limits.max, source.max)
    return np.clip(x, x.dtype.type(low), x.dtype.type(high)).astype(dtype)


@opcode(rf"cvt(?P<sat>\.sat)?\.(?P<to>{INTEGER})\.(?P<from>{INTEGER})")
def _integer_to_integer(m: re.Match[str]) -> Semantics:
    dtype = DTYPES[m["to"]]
    if m["sat"]:
        return Semantics(lambda a: _clamped(a, dtype), (m["to"],), (m["from"],))
    return Semantics(lambda a: a.astype(dtype), (m["to"],), (m["from"],))


@opcode(rf"cvt\.(?P<round>rni|rzi|rmi|rpi)(?P<ftz>\.ftz)?(\.sat)?\.(?P<to>{INTEGER})\.(?P<from>{FLOAT})")
def _float_to_integer(m: re.Match[str]) -> Semantics:
    """Clamped. NaN gives 0, or the lowest number's bits where either type has 64."""
    dtype, start, integral = DTYPES[m["to"]], finish(m["ftz"], None), TO_INTEGRAL[m["round"]]
    limits = np.iinfo(dtype)
    wide = m["from"] == "f64" or m["to"].endswith("64")
    bits = 1 << (8 * dtype.itemsize - 1) if wide else 0
    of_nan = np.array([bits], f"u{dtype.itemsize}").view(dtype)[0]

    def convert(a: Numbers) -> Numbers:
        x = integral(start(a).astype(np.float64))
        inside = (x > limits.min) & (x < limits.max)
        result = np.where(inside, x, 0).astype(dtype)
        result = np.where(x <= limits.min, dtype.type(limits.min), np.where(x >= limits.max, dtype.type(limits.max), result))
        return np.where(np.isnan(x), of_nan, result)

    return Semantics(convert, (m["to"],), (m["from"],))


@opcode(rf"cvt\.(?P<round>rn|rz|rm|rp)(?P<sat>\.sat)?\.(?P<to>{FLOAT})\.(?P<from>{INTEGER})")
def _integer_to_float(m: re.Match[str]) -> Semantics:
    dtype, end = DTYPES[m["to"]], finish(None, m["sat"])
    if m["round"] != "rn":
        if m["from"].endswith("64") or m["to"] == "f64":
            raise NotImplementedError(m[0])
        return Semantics(lambda a: end(narrowed(a.astype(np.float64), dtype, m["round"])), (m["to"],), (m["from"],))
    return Semantics(lambda a: end(a.astype(dtype)), (m["to"],), (m["from"],))


@opcode(rf"cvt(\.(?P<round>rni|rzi|rmi|rpi|rn|rz|rm|rp))?(?P<ftz>\.ftz)?(?P<sat>\.sat)?\.(?P<to>{FLOAT})\.(?P<from>{FLOAT})")
def _float_to_float(m: re.Match[str]) -> Semantics:
    dtype, start, end = DTYPES[m["to"]], finish(m["ftz"], None), finish(m["ftz"], m["sat"])
    mode = m["round"] or "rn"
    if "f32" not in (m["to"], m["from"]):
        start = finish(None, None)
    if m["to"] != "f32":
        end = finish(None, m["sat"])

    def convert(a: Numbers) -> Numbers:
        if mode in TO_INTEGRAL:
            return end(TO_INTEGRAL[mode](start(a)).astype(dtype))
        return end(start(a).astype(dtype) if mode == "rn" else narrowed(start(a).astype(np.float64), dtype, mode))

    return Semantics(convert, (m["to"],), (m["from"],))


@opcode(r"cvt\.(?P<round>rn|rna)\.tf32\.f32")
def _to_tf32(m: re.Match[str]) -> Semantics:
    """Ten bits of fraction; rna: halfway goes away from zero."""
    nearest_even = m["round"] == "rn"

    def convert(a: Numbers) -> Numbers:
        return as_tf32(a, nearest_even).view(np.uint32)

    return Semantics(convert, ("b32",), ("f32",))


def as_tf32(x: Numbers, nearest_even: bool = False) -> Numbers:
    """float32 numbers that TF32 holds."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    half = np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1)) if nearest_even else np.uint32(0x1000)
    rounded = ((bits + half) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


@opcode(r"cvt\.rn\.f16x2\.f32")
def _to_two_halves(m: re.Match[str]) -> Semantics:
    def convert(high: Numbers, low: Numbers) -> Numbers:
        upper, lower = (x.astype(np.float16).view(np.uint16).astype(np.uint32) for x in (high, low))
        return upper << np.uint32(16) | lower

    return Semantics(convert, ("f16x2",), ("f32", "f32"))


WINDOWS = {"global": 0, "const": 0, "shared": 1 << 60, "local": 1 << 61}  # of generic addresses


@opcode(r"cvta(?P<to>\.to)?\.(?P<space>global|const|shared)\.(?P<type>u32|u64)")
def _convert_address(m: re.Match[str]) -> Semantics:
    offset = np.uint64(WINDOWS[m["space"]])

    def convert(a: Numbers) -> Numbers:
        return (a - offset if m["to"] else a + offset) if offset else a

    return Semantics(convert, (m["type"],), (m["type"],))
