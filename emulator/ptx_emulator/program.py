"""A parsed entry made ready to run: registers are slots, instructions are functions of slots, grouped into basic blocks."""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .errors import UnknownPTX
from .instructions import DTYPES, Semantics, semantics
from .instructions.integers import pack, unpack
from .parser import TYPE_BYTES, Address, Immediate, Instruction, Operand, Register, Sink, Symbol, parse

SPECIAL = tuple(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz")
SPECIAL += ("%laneid", "%warpid", "%lanemask_eq", "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge")
SPECIAL += ("%dynamic_smem_size", "%total_smem_size")
GRID_HANDLE, GRID_BARRIER = "cudaCGGetIntrinsicHandle", "cudaCGSynchronize"


class Op:
    """One instruction: slots and types of what it reads, slots of what it writes."""

    __slots__ = ("destinations", "function", "group", "guard", "sources", "text")

    def __init__(
        self,
        function: Callable[..., Any],
        sources: tuple[tuple[int, Any], ...],
        destinations: tuple[tuple[int, Callable[[Any], Any] | None], ...],
        group: bool,
        guard: tuple[int, bool] | None,
        text: str,
    ) -> None:
        self.function, self.sources, self.destinations = function, sources, destinations
        self.group, self.guard, self.text = group, guard, text


class Control(NamedTuple):
    """How a block ends. kind: next, jump, exit, barrier, grid, trap."""

    kind: str
    target: int = -1
    guard: tuple[int, bool] | None = None
    text: str = ""


class Block:
    def __init__(self, ops: list[Op], opcodes: list[str], control: Control) -> None:
        self.ops, self.opcodes, self.control = ops, opcodes, control
        self.number = -1
        self.inputs: tuple[int, ...] = ()
        self.outputs: tuple[int, ...] = ()

    def reads_and_writes(self) -> tuple[set[int], set[int]]:
        reads: set[int] = set()
        writes: set[int] = set()
        for op in self.ops:
            reads |= {slot for slot, _ in op.sources} - writes
            if op.guard:
                reads |= ({op.guard[0]} | {slot for slot, _ in op.destinations}) - writes
            writes |= {slot for slot, _ in op.destinations}
        if self.control.guard:
            reads |= {self.control.guard[0]} - writes
        return reads, writes


class Program:
    """slots: of every name. constants: what slots hold before the launch."""

    def __init__(self, ptx: str) -> None:
        module = parse(ptx)
        self.entry = module.entry
        self.slots: dict[str, int] = {}
        self.constants: dict[int, Any] = {}
        self._place_shared(module.variables)
        for name in SPECIAL:
            self.slot(name)
        self.parameters = [(self.slot(name), DTYPES[kind]) for name, kind in self.entry.parameters]
        self.blocks = self._blocks()
        self._find_escaping()
        self.shared_granule = min([4, *self._widths(r"\.shared|^(ld|st|atom|red)\.(?!.*(global|param|const))")])

    def slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots))

    def _place_shared(self, variables: list[Any]) -> None:
        """Where each variable lies in a block's shared memory; the dynamic ones begin behind all others."""
        at, dynamic = 0, []
        self.places: dict[str, int] = {}
        for v in variables:
            if v.space != "shared":
                continue
            if v.length == 0:
                dynamic.append(v)
                continue
            at = -(-at // v.alignment) * v.alignment
            self.places[v.name] = at
            at += v.length * TYPE_BYTES[v.type]
        alignment = max([16, *(v.alignment for v in dynamic)])
        self.static_shared = at
        self.dynamic_start = -(-at // alignment) * alignment
        self.places.update((v.name, self.dynamic_start) for v in dynamic)

    def _widths(self, where: str) -> list[int]:
        opcodes = [i.opcode for i in self.entry.instructions if re.search(where, i.opcode)]
        return [TYPE_BYTES[kind] for o in opcodes if (kind := o.rpartition(".")[2]) in TYPE_BYTES]

    def _blocks(self) -> list[Block]:
        """Control's targets are indices of blocks."""
        code = self.entry.instructions
        leaders = {0, len(code)} | set(self.entry.labels.values())
        leaders |= {
            i + 1 for i, instruction in enumerate(code) if _ends_block(instruction.opcode) or _is_grid_barrier(instruction)
        }
        starts = sorted(leaders)
        number = {start: k for k, start in enumerate(starts)}
        blocks = []
        for start, end in pairwise(starts):
            ops: list[Op] = []
            control = Control("next", number[end])
            for instruction in code[start:end]:
                found = self._control(instruction, number, number[end])
                if found is None:
                    ops += self._ops(instruction)
                else:
                    control = found
            blocks.append(Block(ops, [i.opcode for i in code[start:end]], control))
        return blocks

    def _control(self, instruction: Instruction, number: dict[int, int], following: int) -> Control | None:
        opcode, guard = instruction.opcode, self._guard(instruction)
        if opcode in ("bra", "bra.uni"):
            target = instruction.operands[0]
            assert isinstance(target, Symbol)
            return Control("jump", number[self.entry.labels[target.name]], guard, instruction.text)
        if opcode in ("ret", "exit", "ret.uni"):
            return Control("exit", following, guard, instruction.text)
        if opcode == "trap":
            return Control("trap", following, guard, instruction.text)
        if opcode in ("bar.sync", "barrier.sync", "barrier.sync.aligned", "barrier.cta.sync", "barrier.cta.sync.aligned"):
            if instruction.operands != (Immediate("0"),) or guard:
                raise UnknownPTX(f"a barrier of a part of a block: {instruction.text}")
            return Control("barrier", following, None, instruction.text)
        return Control("grid", following, guard, instruction.text) if _is_grid_barrier(instruction) else None

    def _guard(self, instruction: Instruction) -> tuple[int, bool] | None:
        guard = instruction.guard
        return (self.slot(guard.name), guard.negated) if guard else None

    def _ops(self, instruction: Instruction) -> list[Op]:
        """The instruction's own last, before it what computes its addresses and negated sources."""
        meaning, operands = self._meaning(instruction)
        count = len(operands) - len(meaning.sources)
        if count != len(meaning.destinations) and not (instruction.opcode.startswith("shfl") and count == 1):
            raise UnknownPTX(f"number of operands: {instruction.text}")
        before: list[Op] = []
        sources = tuple(self._source(o, kind, before) for o, kind in zip(operands[count:], meaning.sources, strict=True))
        destinations = tuple(
            self._destination(o, kind) for o, kind in zip(operands[:count], meaning.destinations[:count], strict=True)
        )
        function = meaning.function
        op = Op(function, sources, destinations, meaning.group, self._guard(instruction), instruction.text)
        return [*before, op]

    def _meaning(self, instruction: Instruction) -> tuple[Semantics, tuple[Operand, ...]]:
        """Moves and parameters depend on their operands, not on the opcode alone."""
        opcode, operands = instruction.opcode, instruction.operands
        parts = opcode.split(".")
        if parts[0] == "mov" and len(operands) > 2:
            unpacks = instruction.text.partition(" ")[2].startswith("<")
            return (unpack if unpacks else pack)(parts[-1], len(operands) - 1), operands
        if parts[:2] in (["ld", "param"], ["st", "param"]) and len(parts) == 3:
            address = operands[parts[0] == "ld"]
            assert isinstance(address, Address)
            if address.offset or not isinstance(address.base, Symbol):
                raise UnknownPTX(f"a part of a parameter: {instruction.text}")
            self.slot(address.base.name)
            place = Register(address.base.name)
            return semantics(f"mov.{parts[2]}") if parts[2][1:] != "8" else _byte_move(parts[2]), (
                (operands[0], place) if parts[0] == "ld" else (place, operands[1])
            )
        if parts[0] == "call":
            return self._call(instruction)
        meaning = semantics(opcode)
        if parts[0] == "setp" and len(operands) == len(meaning.sources) + 2:
            return Semantics(_with_opposite(meaning.function), ("pred", "pred"), meaning.sources), operands
        return meaning, operands

    def _call(self, instruction: Instruction) -> tuple[Semantics, tuple[Operand, ...]]:
        names = [o.name for o in instruction.operands if isinstance(o, (Symbol, Register))]
        if GRID_HANDLE in names:
            self.slot(names[0])
            return Semantics(lambda: np.ones(1, np.uint64), ("u64",), ()), (Register(names[0]),)
        raise UnknownPTX(f"a call, which a kernel here must not hold: {instruction.text}")

    def _source(self, operand: Operand, kind: str, before: list[Op]) -> tuple[int, Any]:
        dtype = DTYPES[kind]
        if isinstance(operand, Address):
            return self._address(operand, before), dtype
        if isinstance(operand, Symbol) and operand.name in self.places:
            return self._constant(np.array([self.places[operand.name]], np.int64).astype(dtype)), dtype
        if isinstance(operand, Immediate):
            return self._constant(immediate(operand.text, dtype)), dtype
        slot = self._register(operand)
        if isinstance(operand, Register) and operand.negated:
            other = self.slot(f"!{operand.name}")
            before.append(Op(np.invert, ((slot, dtype),), ((other, None),), False, None, ""))
            slot = other
        return slot, dtype

    def _address(self, operand: Address, before: list[Op]) -> int:
        """A slot of int64. Registers of 32 bits, which shared memory is addressed with, are unsigned."""
        narrow = isinstance(operand.base, Register) and self.entry.registers.get(operand.base.name, "b64").endswith("32")
        slot, dtype = self._source(operand.base, "u32" if narrow else "address", before)
        if not operand.offset and not narrow:
            return slot
        total, offset = self.slot(f"{slot}+{operand.offset}"), np.int64(operand.offset)
        before.append(Op(lambda a: a.astype(np.int64) + offset, ((slot, dtype),), ((total, None),), False, None, ""))
        return total

    def _destination(self, operand: Operand, kind: str) -> tuple[int, Callable[[Any], Any] | None]:
        if isinstance(operand, Sink):
            return self.slot("_"), None
        slot, dtype = self._register(operand), DTYPES[kind]
        assert isinstance(operand, (Register, Symbol))
        declared = DTYPES[self.entry.registers.get(operand.name, kind)]
        if declared.itemsize == dtype.itemsize:
            return slot, None
        if declared.itemsize < dtype.itemsize:
            raise UnknownPTX(f"{kind} into the narrower register {operand.name}")
        wide = np.dtype(f"{'i' if dtype.kind == 'i' else 'u'}{declared.itemsize}")
        raw = dtype if dtype.kind in "iu" else np.dtype(f"u{dtype.itemsize}")
        return slot, lambda v: v.view(raw).astype(wide)

    def _register(self, operand: Operand) -> int:
        if isinstance(operand, (Register, Symbol)) and (operand.name in self.slots or operand.name in self.entry.registers):
            return self.slot(operand.name)
        raise UnknownPTX(f"operand {operand}")

    def _constant(self, value: Any) -> int:
        slot = self.slot(f"={value.dtype}:{value.tobytes().hex()}")
        self.constants[slot] = value
        return slot

    def _find_escaping(self) -> None:
        """A register that no block reads before writing it lives inside blocks only."""
        escaping: set[int] = set()
        for block in self.blocks:
            reads, _ = block.reads_and_writes()
            block.inputs = tuple(sorted(reads))
            escaping |= reads
        for number, block in enumerate(self.blocks):
            block.number = number
            block.outputs = tuple(sorted(block.reads_and_writes()[1] & escaping))


def _ends_block(opcode: str) -> bool:
    return opcode.partition(".")[0] in ("bra", "ret", "exit", "trap", "barrier") or opcode == "bar.sync"


def _is_grid_barrier(instruction: Instruction) -> bool:
    return instruction.opcode.startswith("call") and Symbol(GRID_BARRIER) in instruction.operands


def _with_opposite(compare: Callable[..., Any]) -> Callable[..., Any]:
    """setp's second destination."""

    def both(*sources: Any) -> Any:
        result = compare(*sources)
        return result, ~result

    return both


def _byte_move(kind: str) -> Semantics:
    return Semantics(lambda a: a, (kind,), (kind,))


def immediate(text: str, dtype: Any) -> Any:
    """(1,) of dtype. 0f and 0d: the bits of a float."""
    if text[:2] in ("0f", "0F"):
        return np.array([int(text[2:], 16)], np.uint32).view(np.float32).astype(_float(dtype)).view(dtype)
    if text[:2] in ("0d", "0D"):
        return np.array([int(text[2:], 16)], np.uint64).view(np.float64).astype(_float(dtype)).view(dtype)
    value = int(text.rstrip("U"), 0)
    if dtype.kind in "fb":
        return np.array([value]).astype(dtype)
    bits = 8 * dtype.itemsize
    return np.array([value & ((1 << bits) - 1)], f"u{dtype.itemsize}").view(dtype)


def _float(dtype: Any) -> Any:
    return dtype if dtype.kind == "f" else np.dtype(f"f{dtype.itemsize}")
