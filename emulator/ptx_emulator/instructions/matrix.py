"""mma.sync: a warp multiplies matrices whose fragments its lanes hold.

Lane l holds, of every fragment, rows or columns g = l / 4 (and g + 8) at k = 2 t, 2 t + 1 (float16: pairs in a register) or
k = t (tf32), t = l % 4; further registers add 8 (float16) or 4 (tf32) to k.
"""

import re
from typing import Any

import numpy as np

from ..errors import PTXError
from .semantics import Semantics, opcode

LANES = np.arange(32)
G, T = LANES // 4, LANES % 4


def _elements(registers: tuple[Any, ...], half: bool, warps: int) -> Any:
    """(registers, warps, 32 lanes, elements in a register) float64; tf32 ignores the 13 lowest bits."""
    stacked = np.stack([np.ascontiguousarray(np.broadcast_to(r, (warps * 32,))) for r in registers])
    if half:
        return stacked.view(np.float16).reshape(len(registers), warps, 32, 2).astype(np.float64)
    return (stacked & np.uint32(0xFFFFE000)).view(np.float32).reshape(len(registers), warps, 32, 1).astype(np.float64)


def _along_k(half: bool, register: int) -> Any:
    """(32 lanes, elements): where on the k axis a register's elements lie; `register` counts along k."""
    return (2 * T[:, None] + np.arange(2) + 8 * register) if half else (T[:, None] + 4 * register)


def _multiply(half: bool, k: int) -> Semantics:
    a_registers, b_registers = (k // 4, k // 8) if half else (k // 2, k // 4)

    def multiply(group: Any, *registers: Any) -> Any:
        warps = group.n // 32
        if group.n % 32 or (group.lane != np.tile(LANES, warps)).any():
            raise PTXError("mma executed by a part of a warp")
        a, b, c = np.zeros((warps, 16, k)), np.zeros((warps, k, 8)), np.zeros((warps, 16, 8))
        values = _elements(registers[:a_registers], half, warps)
        for r in range(a_registers):
            a[:, (G + 8 * (r % 2))[:, None], _along_k(half, r // 2)] = values[r]
        values = _elements(registers[a_registers : a_registers + b_registers], half, warps)
        for r in range(b_registers):
            b[:, _along_k(half, r), G[:, None]] = values[r]
        for r, value in enumerate(registers[a_registers + b_registers :]):
            c[:, G + 8 * (r // 2), 2 * T + r % 2] = np.broadcast_to(value, (group.n,)).reshape(warps, 32)
        d = (a @ b + c).astype(np.float32)
        return tuple(d[:, G + 8 * (r // 2), 2 * T + r % 2].reshape(-1) for r in range(4))

    sources = ("b32",) * (a_registers + b_registers) + ("f32",) * 4
    return Semantics(multiply, ("f32",) * 4, sources, group=True)


@opcode(r"mma\.sync\.aligned\.m16n8k(?P<k>8|16)\.row\.col\.f32\.f16\.f16\.f32")
def _halves(m: re.Match[str]) -> Semantics:
    return _multiply(True, int(m["k"]))


@opcode(r"mma\.sync\.aligned\.m16n8k(?P<k>4|8)\.row\.col\.f32\.tf32\.tf32\.f32")
def _tf32(m: re.Match[str]) -> Semantics:
    return _multiply(False, int(m["k"]))
