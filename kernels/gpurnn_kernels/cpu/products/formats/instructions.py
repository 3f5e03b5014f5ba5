"""Processors' instructions for numbers of fewer bits, on vectors of packets; `Target` says which there are.

The arguments `a`, `b` and `total` are LLVM values: vectors of `v`'s lanes, 32 bits each.
"""

from llvmlite import ir

from ...codegen.vector import Vectors


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's type `bfloat`, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def dot_bf16(v: Vectors, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    """Adds the products of a packet's two bfloat16, the odd one first, to a total of float32."""
    kind = ir.VectorType(_BFloat(), 2 * v.lanes)
    pair = [v.builder.bitcast(one, kind) for one in (a, b)]
    return v.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", v.type, [total, *pair])


def rounded_bf16(v: Vectors, value: ir.Value) -> ir.Value:
    """Rounds floats to bfloat16; -> a vector of 16-bit integers."""
    found = v.intrinsic("llvm.x86.avx512bf16.cvtneps2bf16.512", ir.VectorType(_BFloat(), v.lanes), [value])
    return v.builder.bitcast(found, ir.VectorType(ir.IntType(16), v.lanes))


def dot_vpdpbusd(v: Vectors, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    """Adds the products of a packet's four bytes, unsigned by signed, to a total of integers."""
    return v.intrinsic(f"llvm.x86.avx512.vpdpbusd.{8 * v.size}", v.type, [total, a, b])


def dot_pmaddwd(v: Vectors, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    """Does the same by pairs of 16-bit numbers: those of even bytes, then those of odd ones."""
    builder, kind = v.builder, ir.VectorType(ir.IntType(16), 2 * v.lanes)
    name = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}[v.size]
    a, b = (builder.bitcast(one, kind) for one in (a, b))
    eight, low = (ir.Constant(kind, [value] * kind.count) for value in (8, 0xFF))
    even = builder.and_(a, low), builder.ashr(builder.shl(b, eight), eight)
    odd = builder.lshr(a, eight), builder.ashr(b, eight)
    for pair in (even, odd):
        total = builder.add(total, v.intrinsic(f"llvm.x86.{name}", v.type, list(pair)))
    return total


def dot_sdot(v: Vectors, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    """Does the same, with 128 less for each of the unsigned bytes: both are signed then."""
    kind = ir.VectorType(ir.IntType(8), 4 * v.lanes)
    signed = v.builder.xor(a, v.integers(0x80808080))
    pair = [v.builder.bitcast(one, kind) for one in (b, signed)]
    return v.intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", v.type, [total, *pair])


def dot_each(v: Vectors, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    """Does the same as `dot_vpdpbusd` on any processor."""
    builder = v.builder
    for byte in range(4):
        one = builder.and_(builder.lshr(a, v.integers(8 * byte)), v.integers(0xFF))
        other = builder.ashr(builder.shl(b, v.integers(24 - 8 * byte)), v.integers(24))
        total = builder.add(total, builder.mul(one, other))
    return total


DOTS = {"vpdpbusd": dot_vpdpbusd, "pmaddwd": dot_pmaddwd, "sdot": dot_sdot, "": dot_each}  # by `Target.dot`
