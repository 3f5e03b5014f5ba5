"""cp.async: 16 or fewer bytes from global to shared memory, there only after a wait."""

import re
from typing import Any

from .semantics import UNSIGNED, Semantics, opcode


@opcode(r"cp\.async\.(ca|cg)\.shared\.global(\.L2::(64B|128B|256B))?")
def _copy(m: re.Match[str]) -> Semantics:
    """Whole copies only: a fourth operand, the bytes to read, is refused by the number of operands."""

    def copy(group: Any, to: Any, source: Any, size: Any) -> None:
        words = int(size[0]) // 4
        values = group.load("global", source, UNSIGNED[4], words, "weak")
        group.copy_later(to, [values] if words == 1 else list(values))

    return Semantics(copy, (), ("address", "address", "u32"), group=True)


@opcode(r"cp\.async\.commit_group")
def _commit(m: re.Match[str]) -> Semantics:
    return Semantics(lambda group: group.launch.copies.commit(group.ids), (), (), group=True)


@opcode(r"cp\.async\.wait_group")
def _wait(m: re.Match[str]) -> Semantics:
    return Semantics(lambda group, pending: group.launch.copies.wait(group, int(pending[0])), (), ("u32",), group=True)


@opcode(r"cp\.async\.wait_all")
def _wait_all(m: re.Match[str]) -> Semantics:
    def wait(group: Any) -> None:
        group.launch.copies.commit(group.ids)
        group.launch.copies.wait(group, 0)

    return Semantics(wait, (), (), group=True)
