"""Machine code of a compiled kernel, as `cuobjdump -sass` shows it: what is in it that should not be, or must be."""

import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from .compile import Capability, compiled
from .resources import dumped, resources

if TYPE_CHECKING:
    from gpurnn_kernels.cuda.host.device import Kernel

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)[^;]*;")


class Card(NamedTuple):
    """Counts of instructions as they stand in the code, both arms of every branch, not as they are executed."""

    registers: int  # a thread
    stack: int  # bytes a thread
    local: int  # bytes a thread
    shared: int  # static, bytes a block
    instructions: int  # without the padding at the end
    spills: int  # loads and stores of local memory
    calls: int
    wide_loads: int  # of global memory, 128 bits
    wide_stores: int
    loads: int  # of global memory, any width
    stores: int
    special: int  # MUFU: ex2, rcp, tanh
    multiply_adds: int  # float32
    tensor: int  # matrix instructions

    @property
    def clean(self) -> bool:
        """Nothing spilled, nothing called, no local memory."""
        return not (self.spills or self.calls or self.local or self.stack)


@cache
def opcodes(kernel: "Kernel", cc: Capability) -> Counter[str]:
    code = compiled(kernel, cc)
    listings = re.split(r"\n\s*Function : ", dumped(code.cubin, "-sass"))
    text = next(listing for listing in listings[1:] if listing.startswith(code.entry))
    names = _INSTRUCTION.findall(text)
    while names and (names[-1] == "NOP" or names[-1].startswith("BRA")):  # a loop to itself, then padding
        names.pop()
    return Counter(names)


@cache
def card(kernel: "Kernel", cc: Capability) -> Card:
    found, used = opcodes(kernel, cc), resources(kernel, cc)

    def count(pattern: str) -> int:
        return sum(n for name, n in found.items() if re.match(pattern, name))

    return Card(
        registers=used.registers,
        stack=used.stack,
        local=used.local,
        shared=used.shared,
        instructions=sum(found.values()),
        spills=count(r"(LDL|STL)\b"),
        calls=count(r"CALL\b"),
        wide_loads=count(r"LDG\..*\b128\b"),
        wide_stores=count(r"STG\..*\b128\b"),
        loads=count(r"LDG\b"),
        stores=count(r"STG\b"),
        special=count(r"MUFU\b"),
        multiply_adds=count(r"FFMA2?\b"),
        tensor=count(r"HMMA\b"),
    )
