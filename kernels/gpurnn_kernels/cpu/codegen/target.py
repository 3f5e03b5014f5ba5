"""The abilities of the compiler's target: vector lanes, registers, fused multiply-add.

The target is Numba's: the host, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES ask for.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from numba.core.registry import cpu_target

from .amx_permission import granted, wanted

LINE = 64  # bytes of a cache line, to which no two threads write
# by vector registers
_L1_BYTES = {32: 1 << 15, 16: 1 << 14}  # the largest panel that L1 (32 KiB at least) keeps while tile after tile reads it
# sums that hide a multiply-add's latency: of one row, of more rows; and the most that registers hold. One row wants fewer with
# 32 registers: it waits for weights, which arrive faster from few addresses
_SUMS = {32: (4, 12, 24), 16: (8, 8, 12)}


@dataclass(frozen=True)
class Target:
    triple: str
    cpu: str
    vector_bytes: int
    registers: int  # vector registers
    fma: bool
    amx: bool = False  # tile registers that multiply bfloat16, which this process may use
    bf16: bool = False  # vectors of pairs of bfloat16 are multiplied and added to floats
    # the instruction that adds products of 8-bit integers to a sum: four at once, or two of 16 bits ("pmaddwd"); "": none
    dot: Literal["", "vpdpbusd", "pmaddwd", "sdot"] = ""

    def lanes(self, itemsize: int) -> int:
        return self.vector_bytes // itemsize

    def wide(self, depth: int) -> int:
        """Gives the vectors of a wide panel, `depth` packets deep: four, or two where L1 would not keep a panel of four
        between tiles. Tiles of 12 x 2 sums (6 x 2 of 16 registers) read weights half as often as 6 x 4 (3 x 4)."""
        return 4 if 4 * depth * self.vector_bytes <= _L1_BYTES[self.registers] else 2

    def tile_rows(self, vectors: int, split: bool = False) -> int:
        """Gives the rows of the largest register tile on a panel of `vectors` vectors: rows x vectors sums stay in
        registers. split: each vector of weights takes two registers, and so does a row's."""
        if self.registers == 32:
            return ({4: 5, 3: 7, 2: 12, 1: 8} if split else {4: 6, 3: 8, 2: 12, 1: 8})[vectors]
        return ({4: 2, 3: 2, 2: 5, 1: 6} if split else {4: 3, 3: 4, 2: 6, 1: 6})[vectors]

    def tile_groups(self, vectors: int, split: bool = False) -> dict[int, int]:
        """Gives, by number of rows, the panels that one tile takes where one panel has too few sums to hide a
        multiply-add's latency. split: as `tile_rows` takes it; a word is two multiply-adds, one after the other."""
        alone, enough, most = _SUMS[self.registers]
        alone = 8 if split else alone
        found = {}
        for rows in range(1, enough):
            wanted = -(-(alone if rows == 1 else enough) // (rows * vectors))
            panels = min(wanted, most // (rows * vectors))
            while split and rows * vectors * panels + 2 * min(rows, vectors * panels) + 2 > self.registers:
                panels -= 1
            if vectors > 1 and panels > 1:
                found[rows] = panels
        return found

    def __str__(self) -> str:
        amx = ", amx for gradients" if self.amx else ""
        return f"{self.cpu}, {8 * self.vector_bytes}-bit vectors, {'fma' if self.fma else 'no fma'}{amx}"


def describe(triple: str, cpu: str, features: str) -> Target:
    """Gives the target of a triple, a CPU name and an LLVM feature string ("+avx2,+fma,-avx512f")."""
    on = {name[1:] for name in features.split(",") if name.startswith("+")}
    dot: Literal["", "vpdpbusd", "pmaddwd", "sdot"]
    if triple.startswith(("aarch64", "arm64")):
        return Target(triple, cpu, vector_bytes=16, registers=32, fma=True, dot="sdot" if "dotprod" in on else "")
    if {"avx512f", "avx512dq", "avx512vl"} <= on:
        amx, bf16 = {"amx-tile", "amx-bf16"} <= on, "avx512bf16" in on
        dot = "vpdpbusd" if "avx512vnni" in on else "pmaddwd" if "avx512bw" in on else ""
        return Target(triple, cpu, 64, registers=32, fma=True, amx=amx, bf16=bf16, dot=dot)
    if "avx2" in on:
        return Target(triple, cpu, 32, registers=16, fma="fma" in on, dot="vpdpbusd" if "avxvnni" in on else "pmaddwd")
    x86 = triple.startswith("x86_64")
    return Target(triple, cpu, vector_bytes=16, registers=16, fma="fma" in on, dot="pmaddwd" if x86 else "")


@cache
def target() -> Target:
    """Gives the target of this process."""
    found = describe(*cpu_target.target_context.codegen().magic_tuple())
    return replace(found, amx=wanted() and found.amx and granted())
