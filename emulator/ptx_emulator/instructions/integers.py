"""Integer arithmetic, logic, bits, comparison and moves."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .semantics import DTYPES, UNSIGNED, WIDER, Semantics, opcode

Ints = Any  # arrays (n,) or (1,)


@opcode(r"(?P<op>add|sub)\.(?P<type>[su](16|32|64))")
def _add(m: re.Match[str]) -> Semantics:
    return Semantics({"add": np.add, "sub": np.subtract}[m["op"]], (m["type"],), (m["type"],) * 2)


def _wide(kind: str) -> Callable[[Ints, Ints], Ints]:
    dtype = DTYPES[WIDER[kind]]
    return lambda a, b: np.multiply(a, b, dtype=dtype)


def _high(kind: str) -> Callable[[Ints, Ints], Ints]:
    """The upper half of the product, through Python's integers."""
    dtype = DTYPES[kind]
    bits: int = 8 * dtype.itemsize

    def high(a: Ints, b: Ints) -> Ints:
        a, b = np.broadcast_arrays(a, b)
        return np.array([(int(x) * int(y)) >> bits for x, y in zip(a, b, strict=True)], dtype=dtype)

    return high


@opcode(r"mul\.(?P<part>lo|hi|wide)\.(?P<type>[su](16|32|64))")
def _mul(m: re.Match[str]) -> Semantics:
    kind = m["type"]
    if m["part"] == "wide":
        return Semantics(_wide(kind), (WIDER[kind],), (kind, kind))
    return Semantics(np.multiply if m["part"] == "lo" else _high(kind), (kind,), (kind, kind))


@opcode(r"mad\.(?P<part>lo|hi|wide)\.(?P<type>[su](16|32|64))")
def _mad(m: re.Match[str]) -> Semantics:
    kind = m["type"]
    result = WIDER[kind] if m["part"] == "wide" else kind
    products: dict[str, Callable[[Ints, Ints], Ints]] = {"lo": np.multiply, "hi": _high(kind)}
    product = _wide(kind) if m["part"] == "wide" else products[m["part"]]
    return Semantics(lambda a, b, c: product(a, b) + c, (result,), (kind, kind, result))


@opcode(r"(?P<op>div|rem)\.(?P<type>[su](16|32|64))")
def _div(m: re.Match[str]) -> Semantics:
    """Truncating. By zero the result is unspecified: all bits set here."""
    dtype = DTYPES[m["type"]]

    def divide(a: Ints, b: Ints) -> Ints:
        safe = np.where(b == 0, dtype.type(1), b)
        quotient, rest = np.floor_divide(a, safe), np.remainder(a, safe)
        if dtype.kind == "i":
            quotient = quotient + ((rest != 0) & ((a < 0) != (safe < 0))).astype(dtype)
        result = quotient if m["op"] == "div" else a - quotient * safe
        return np.where(b == 0, (~dtype.type(0)), result)

    return Semantics(divide, (m["type"],), (m["type"],) * 2)


@opcode(r"(?P<op>min|max)\.(?P<type>[su](16|32|64))")
def _min(m: re.Match[str]) -> Semantics:
    return Semantics({"min": np.minimum, "max": np.maximum}[m["op"]], (m["type"],), (m["type"],) * 2)


@opcode(r"(?P<op>neg|abs)\.(?P<type>s(16|32|64))")
def _neg(m: re.Match[str]) -> Semantics:
    return Semantics({"neg": np.negative, "abs": np.abs}[m["op"]], (m["type"],), (m["type"],))


@opcode(r"(?P<op>and|or|xor)\.(?P<type>pred|b16|b32|b64)")
def _logic(m: re.Match[str]) -> Semantics:
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[m["op"]]
    return Semantics(function, (m["type"],), (m["type"],) * 2)


@opcode(r"not\.(?P<type>pred|b16|b32|b64)")
def _not(m: re.Match[str]) -> Semantics:
    return Semantics(np.invert, (m["type"],), (m["type"],))


@opcode(r"(?P<op>shl|shr)\.(?P<type>[bsu](16|32|64))")
def _shift(m: re.Match[str]) -> Semantics:
    """By the width and more: 0, or the sign of a signed number shifted right."""
    dtype = DTYPES[m["type"]]
    bits: int = 8 * dtype.itemsize

    def shift(a: Ints, by: Ints) -> Ints:
        if m["op"] == "shr" and dtype.kind == "i":
            return a >> np.minimum(by, bits - 1).astype(dtype)
        moved = np.left_shift if m["op"] == "shl" else np.right_shift
        return np.where(by < bits, moved(a, np.minimum(by, bits - 1).astype(dtype)), dtype.type(0))

    return Semantics(shift, (m["type"],), (m["type"], "u32"))


@opcode(r"shf\.(?P<side>l|r)\.(?P<mode>wrap|clamp)\.b32")
def _funnel(m: re.Match[str]) -> Semantics:
    def shift(low: Ints, high: Ints, by: Ints) -> Ints:
        wide = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        by = (by & np.uint32(31) if m["mode"] == "wrap" else np.minimum(by, np.uint32(32))).astype(np.uint64)
        moved = (wide << by) >> np.uint64(32) if m["side"] == "l" else wide >> by
        return moved.astype(np.uint32)

    return Semantics(shift, ("b32",), ("b32", "b32", "u32"))


@opcode(r"lop3\.b32")
def _lop3(m: re.Match[str]) -> Semantics:
    def logic(a: Ints, b: Ints, c: Ints, table: Ints) -> Ints:
        result = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), np.uint32)
        for row in range(8):
            if int(table[0]) >> row & 1:
                result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return result

    return Semantics(logic, ("b32",), ("b32", "b32", "b32", "u32"))


@opcode(r"prmt\.b32")
def _permute(m: re.Match[str]) -> Semantics:
    """Four bytes out of eight; with bit 3 of a selector, its byte's sign eight times."""

    def permute(a: Ints, b: Ints, selectors: Ints) -> Ints:
        wide = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
        result = np.zeros(np.broadcast_shapes(wide.shape, selectors.shape), np.uint32)
        for k in range(4):
            selector = (selectors >> np.uint32(4 * k)) & np.uint32(15)
            byte = (wide >> ((selector & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint32) & np.uint32(255)
            sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
            result |= np.where(selector & np.uint32(8), sign, byte) << np.uint32(8 * k)
        return result

    return Semantics(permute, ("b32",), ("b32", "b32", "b32"))


@opcode(r"bfe\.(?P<type>[su](32|64))")
def _extract(m: re.Match[str]) -> Semantics:
    dtype = DTYPES[m["type"]]
    bits: int = 8 * dtype.itemsize

    def one(value: int, position: int, length: int) -> int:
        position, length = position & 255, length & 255
        field = ((value & ((1 << bits) - 1)) >> position) & ((1 << length) - 1)
        top = min(position + length - 1, bits - 1)
        if dtype.kind == "i" and length and value >> top & 1:
            field |= -1 << min(length, max(bits - position, 0))
        field &= (1 << bits) - 1
        return field - (1 << bits) if dtype.kind == "i" and field >> (bits - 1) else field

    def extract(*sources: Ints) -> Ints:
        return np.array([one(*map(int, row)) for row in zip(*np.broadcast_arrays(*sources), strict=True)], dtype)

    return Semantics(extract, (m["type"],), (m["type"], "u32", "u32"))


@opcode(r"bfi\.(?P<type>b(32|64))")
def _insert(m: re.Match[str]) -> Semantics:
    dtype = DTYPES[m["type"]]
    whole: int = (1 << 8 * dtype.itemsize) - 1

    def one(field: int, into: int, position: int, length: int) -> int:
        mask = (((1 << (length & 255)) - 1) << (position & 255)) & whole
        return into & ~mask | (field << (position & 255)) & mask

    def insert(*sources: Ints) -> Ints:
        return np.array([one(*map(int, row)) for row in zip(*np.broadcast_arrays(*sources), strict=True)], dtype)

    return Semantics(insert, (m["type"],), (m["type"], m["type"], "u32", "u32"))


@opcode(r"(?P<op>popc|clz|brev)\.(?P<type>b(32|64))")
def _bits(m: re.Match[str]) -> Semantics:
    dtype = DTYPES[m["type"]]
    bits: int = 8 * dtype.itemsize
    one: dict[str, Callable[[int], int]] = {
        "popc": int.bit_count,
        "clz": lambda x: bits - x.bit_length(),
        "brev": lambda x: int(f"{x:0{bits}b}"[::-1], 2),
    }
    result = m["type"] if m["op"] == "brev" else "u32"
    function = one[m["op"]]
    return Semantics(lambda a: np.array([function(int(x)) for x in a], DTYPES[result]), (result,), (m["type"],))


COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
COMPARISONS |= {"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}


@opcode(r"setp\.(?P<compare>eq|ne|lt|le|gt|ge|lo|ls|hi|hs)(\.(?P<with>and|or|xor))?\.(?P<type>[bsu](16|32|64))")
def _compare(m: re.Match[str]) -> Semantics:
    return comparison(COMPARISONS[m["compare"]], m["with"], m["type"])


def comparison(compare: Callable[[Any, Any], Any], joined: str | None, kind: str) -> Semantics:
    """setp with one destination."""
    if joined is None:
        return Semantics(compare, ("pred",), (kind, kind))
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[joined]
    return Semantics(lambda a, b, p: join(compare(a, b), p), ("pred",), (kind, kind, "pred"))


@opcode(r"selp\.(?P<type>[bsuf](16|32|64))")
def _select(m: re.Match[str]) -> Semantics:
    return Semantics(lambda a, b, p: np.where(p, a, b), (m["type"],), (m["type"], m["type"], "pred"))


@opcode(r"mov\.(?P<type>pred|[bsuf](16|32|64))")
def _move(m: re.Match[str]) -> Semantics:
    return Semantics(lambda a: a, (m["type"],), (m["type"],))


def unpack(kind: str, parts: int) -> Semantics:
    """mov of one register to a vector, the lowest bits first."""
    size = DTYPES[kind].itemsize // parts
    part = UNSIGNED[size]
    return Semantics(
        lambda a: tuple((a >> a.dtype.type(8 * size * k)).astype(part) for k in range(parts)),
        (f"b{8 * size}",) * parts,
        (kind,),
    )


def pack(kind: str, parts: int) -> Semantics:
    """mov of a vector to one register."""
    whole = DTYPES[kind]
    size = whole.itemsize // parts

    def packed(*values: Ints) -> Ints:
        result = values[0].astype(whole)
        for k in range(1, parts):
            result = result | values[k].astype(whole) << whole.type(8 * size * k)
        return result

    return Semantics(packed, (kind,), (f"b{8 * size}",) * parts)
