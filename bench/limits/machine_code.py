"""Two loops in LLVM IR for the host's vector width: FMA in registers, and reading memory.

Written as IR so that nothing stands between the loop and the machine: no array structs, no index checks, no promotion.
Called by address; ctypes lets go of the GIL meanwhile, so several Python threads run them at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.binding as llvm

READ_STREAMS = 8  # vectors read, and sums kept, in one round of the reading loop
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Vectors:
    """The vectors that the host computes on."""

    lanes: int  # float32 in a vector
    fused: bool  # it has a fused multiply-add
    chains: int  # independent accumulators: enough to hide the latency, and they fit the registers


def host_vectors() -> Vectors:
    """The widest float32 vectors that LLVM reports."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Vectors(16, True, 16)
    if features.get("avx"):
        return Vectors(8, bool(features.get("fma")), 12)
    arm = llvm.get_process_triple().startswith(("aarch64", "arm64"))
    return Vectors(4, arm, 20 if arm else 12)


def _loop(lanes: int, accumulators: int, entry: str, body: str) -> str:
    """A loop of %rounds over accumulators %a0.. that start from the vector at %at and are summed into it at the end.

    `body` computes %b0.. from %a0.., and %next, the next round's %offset; `entry` stands before the loop.
    """
    vector = f"<{lanes} x float>"
    phis = "\n".join(f"  %a{k} = phi {vector} [ %start, %entry ], [ %b{k}, %loop ]" for k in range(accumulators))
    sums, last = [], "%b0"
    for k in range(1, accumulators):
        sums.append(f"  %s{k} = fadd {vector} {last}, %b{k}")
        last = f"%s{k}"
    return f"""
entry:
  %start = load {vector}, ptr %at, align 4
{entry}
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %k1, %loop ]
  %offset = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{body}
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k1, %rounds
  br i1 %more, label %loop, label %done
done:
{chr(10).join(sums)}
  store {vector} {last}, ptr %at, align 4
  ret void"""


def _fma_ir(v: Vectors) -> str:
    """void fma(ptr at, i64 rounds): `chains` fused multiply-adds a round; reads x and y from the next two vectors."""
    vector = f"<{v.lanes} x float>"
    step = v.lanes * FLOAT_BYTES
    entry = "\n".join(
        f"  %{name}at = getelementptr i8, ptr %at, i64 {k * step}\n  %{name} = load {vector}, ptr %{name}at, align 4"
        for k, name in ((1, "x"), (2, "y"))
    )
    if v.fused:
        lines = [
            f"  %b{k} = call {vector} @llvm.fma.v{v.lanes}f32({vector} %x, {vector} %y, {vector} %a{k})"
            for k in range(v.chains)
        ]
    else:
        lines = [f"  %m{k} = fmul {vector} %x, %a{k}\n  %b{k} = fadd {vector} %y, %m{k}" for k in range(v.chains)]
    code = _loop(v.lanes, v.chains, entry, "\n".join([*lines, "  %next = add i64 %offset, 0"]))
    declare = f"declare {vector} @llvm.fma.v{v.lanes}f32({vector}, {vector}, {vector})"
    return f"{declare}\ndefine void @fma(ptr %at, i64 %rounds) {{{code}\n}}\n"


def _read_ir(v: Vectors) -> str:
    """void read(ptr at, ptr from, i64 bytes, i64 rounds): sums READ_STREAMS vectors a round; to the end, back to the start,
    and so on: what was read last is met first, while caches that do not hold all of it still hold that."""
    vector, size = f"<{v.lanes} x float>", v.lanes * FLOAT_BYTES
    lines = [
        f"  %step = phi i64 [ {READ_STREAMS * size}, %entry ], [ %turned, %loop ]",
        "  %row = getelementptr i8, ptr %from, i64 %offset",
        "  %after = add i64 %offset, %step",
        # past the end or, as an unsigned number, before the start
        "  %out = icmp uge i64 %after, %bytes",
        "  %back = sub i64 0, %step",
        "  %turned = select i1 %out, i64 %back, i64 %step",
        "  %next = select i1 %out, i64 %offset, i64 %after",
    ]
    for k in range(READ_STREAMS):
        lines += [
            f"  %p{k} = getelementptr i8, ptr %row, i64 {k * size}",
            f"  %v{k} = load {vector}, ptr %p{k}, align 4",
            f"  %b{k} = fadd {vector} %a{k}, %v{k}",
        ]
    code = _loop(v.lanes, READ_STREAMS, "", "\n".join(lines))
    return f"define void @read(ptr %at, ptr %from, i64 %bytes, i64 %rounds) {{{code}\n}}\n"


class Loops:
    """The compiled loops; keep it alive while they run."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.vectors = host_vectors()
        module = llvm.parse_assembly(_fma_ir(self.vectors) + _read_ir(self.vectors))
        module.verify()
        features = llvm.get_host_cpu_features().flatten()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True
        )
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        i64 = ctypes.c_int64
        self.fma: Callable[[int, int], None]
        self.fma = ctypes.CFUNCTYPE(None, i64, i64)(self._engine.get_function_address("fma"))
        self.read: Callable[[int, int, int, int], None]
        self.read = ctypes.CFUNCTYPE(None, i64, i64, i64, i64)(self._engine.get_function_address("read"))

    @property
    def round_bytes(self) -> int:
        """Read in one round of `read`."""
        return READ_STREAMS * self.vectors.lanes * FLOAT_BYTES

    @property
    def round_flops(self) -> int:
        """Done in one round of `fma`."""
        return 2 * self.vectors.chains * self.vectors.lanes
