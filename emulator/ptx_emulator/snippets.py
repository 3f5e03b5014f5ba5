"""Programs of a few lines of PTX, written by hand: they need no compiler."""

from typing import Any

import numpy as np

from .memory import GlobalMemory
from .program import Program
from .scheduler import Launch

WIDTHS = {"pred": "pred", "f16": "b16", "b16": "b16", "u16": "b16", "s16": "b16", "f16x2": "b32"}


def width(kind: str) -> str:
    """The type of a register."""
    return WIDTHS.get(kind) or f"b{kind[1:]}"


def wrap(body: str, pointers: int, declarations: str = "", shared: str = "") -> str:
    """An entry of pointers p0, p1, ... in %a0, %a1, ...; %t is the thread, %o its number times 4."""
    parameters = ",".join(f".param .u64 p{k}" for k in range(pointers))
    loads = "".join(f"ld.param.u64 %a{k}, [p{k}];\n" for k in range(pointers))
    return f"""
.version 8.0
.target sm_90
.address_size 64
{shared}
.visible .entry kernel({parameters})
{{
.reg .b64 %a<{pointers + 1}>; .reg .b32 %t; .reg .b64 %o; {declarations}
{loads}
mov.u32 %t, %tid.x;
mul.wide.u32 %o, %t, 4;
{body}
ret;
}}
"""


def run(ptx: str, arrays: list[Any], threads: int, blocks: int = 1, dynamic: int = 0, **options: Any) -> Launch:
    """Arrays are on the device for as long as that takes; what a kernel writes is copied back into them. None is a hole."""
    memory = GlobalMemory()
    placed = [memory.allocate(a.shape, a.dtype, None, initialised=True) for a in arrays]
    for there, a in zip(placed, arrays, strict=True):
        there.view(np.ndarray)[...] = a
    launch = Launch(Program(ptx), (blocks, 1, 1), (threads, 1, 1), dynamic, memory, np.random.default_rng(0), **options)
    launch.run([np.array([memory.address(p)], np.uint64) for p in placed])
    for there, a in zip(placed, arrays, strict=True):
        a[...] = there.view(np.ndarray)
    return launch


def evaluate(opcode: str, result: str, *sources: tuple[str, Any], noise: bool = False, immediate: str = "") -> Any:
    """One instruction's result for sources ((type, array (n,)), ...): an array of the result's type, of numbers if a pred.

    opcode: or the opcode and its destinations, with a comma; the result is in %p or %d. immediate: further operands, as text.
    """
    n, kinds = len(sources[0][1]), [kind for kind, _ in sources]
    body, arrays = "", []
    for k, (kind, values) in enumerate(sources):
        arrays.append(np.ascontiguousarray(values))
        loaded = "u32" if kind == "pred" else raw(kind)
        body += f"mul.wide.u32 %o, %t, {values.itemsize}; add.s64 %o, %o, %a{k}; ld.global.{loaded} %x{k}, [%o];\n"
        if kind == "pred":
            body += f"setp.ne.u32 %q{k}, %x{k}, 0;\n"
    operands = ", ".join(f"%{'q' if kind == 'pred' else 'x'}{k}" for k, kind in enumerate(kinds))
    destination = "" if opcode.endswith(",") else "%p," if result == "pred" else "%d,"
    body += f"{opcode} {destination} {operands}{immediate};\n"
    if result == "pred":
        body += "selp.u32 %d, 1, 0, %p;\n"
    stored = "b32" if result == "pred" else raw(result)
    bytes_of = int(stored[1:]) // 8
    body += f"mul.wide.u32 %o, %t, {bytes_of}; add.s64 %o, %o, %a{len(sources)}; st.global.{stored} [%o], %d;\n"
    declared = "".join(f".reg .{'b32' if kind == 'pred' else width(kind)} %x{k};" for k, kind in enumerate(kinds))
    declared += f".reg .pred %q<9>; .reg .pred %p; .reg .{'b32' if result == 'pred' else width(result)} %d;"
    out = np.zeros(n, {"f16": np.float16, "f32": np.float32, "f64": np.float64}.get(result, f"u{bytes_of}"))
    if result[0] == "s":
        out = out.view(f"i{bytes_of}")
    launch = run(wrap(body, len(sources) + 1, declared), [*arrays, out], n, noise=noise)
    assert not launch.warnings
    return out


def raw(kind: str) -> str:
    return "b32" if kind == "f16x2" else f"b{kind[1:]}"
