"""What the compiler's target can do: vector lanes, registers, fused multiply-add.

The target is Numba's: the host, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES ask for.
"""

from dataclasses import dataclass
from functools import cache

from numba.core.registry import cpu_target


@dataclass(frozen=True)
class Target:
    triple: str
    cpu: str
    vector_bytes: int
    registers: int  # vector registers
    fma: bool

    def lanes(self, itemsize: int) -> int:
        return self.vector_bytes // itemsize

    def tile_rows(self, vectors: int) -> int:
        """Rows of the largest register tile that is `vectors` wide: rows x vectors sums stay in registers."""
        if self.registers == 32:
            return {4: 6, 3: 8, 2: 8, 1: 8}[vectors]
        return {4: 3, 3: 4, 2: 6, 1: 6}[vectors]

    def __str__(self) -> str:
        return f"{self.cpu}, {8 * self.vector_bytes}-bit vectors, {'fma' if self.fma else 'no fma'}"


def describe(triple: str, cpu: str, features: str) -> Target:
    """The target that a triple, a CPU name and an LLVM feature string ("+avx2,+fma,-avx512f") stand for."""
    on = {name[1:] for name in features.split(",") if name.startswith("+")}
    if triple.startswith(("aarch64", "arm64")):
        return Target(triple, cpu, vector_bytes=16, registers=32, fma=True)
    if {"avx512f", "avx512dq", "avx512vl"} <= on:
        return Target(triple, cpu, vector_bytes=64, registers=32, fma=True)
    if "avx2" in on:
        return Target(triple, cpu, vector_bytes=32, registers=16, fma="fma" in on)
    return Target(triple, cpu, vector_bytes=16, registers=16, fma="fma" in on)


@cache
def target() -> Target:
    """The target of this process."""
    return describe(*cpu_target.target_context.codegen().magic_tuple())
