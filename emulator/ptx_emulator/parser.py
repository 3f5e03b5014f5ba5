"""PTX text to records: functions, variables, instructions and their operands. Nothing is interpreted here."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import UnknownPTX


class Register(NamedTuple):
    name: str
    negated: bool = False


class Immediate(NamedTuple):
    text: str


class Symbol(NamedTuple):
    """A variable, a label or a function."""

    name: str


class Address(NamedTuple):
    base: "Register | Symbol | Immediate"
    offset: int


class Sink(NamedTuple):
    """`_`, a destination that is not wanted."""


Operand = Register | Immediate | Symbol | Address | Sink


class Instruction(NamedTuple):
    opcode: str  # with its modifiers
    operands: tuple[Operand, ...]  # vectors and pairs flattened
    guard: Register | None
    text: str


class Variable(NamedTuple):
    """A declaration in .shared, .global or .const memory."""

    space: str
    alignment: int
    type: str
    name: str
    length: int  # 0: as many as the launch gives (dynamic shared memory)
    values: tuple[int, ...]


@dataclass
class Function:
    name: str
    parameters: list[tuple[str, str]]  # (name, type)
    registers: dict[str, str] = field(default_factory=dict)  # name -> type
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # name -> index of the next instruction
    max_threads: int | None = None


@dataclass
class Module:
    entry: Function
    variables: list[Variable]


_DECLARATION = re.compile(
    r"(?:\.(?:visible|extern|weak|common)\s+)*\.(shared|global|const)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$.]+)"
    r"(?:\[(\d*)\])?\s*(?:=\s*<?([^>]*)>?)?$",
    re.S,
)
_REGISTERS = re.compile(r"([%\w$]+)(?:<(\d+)>)?")
_GUARD = re.compile(r"@(!?)([%\w$]+)\s+")
_OPERAND = re.compile(r"\[[^\]]*\]|[^,\s|<>()]+")
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]")
_NUMBER = re.compile(r"0[fFdD][0-9A-Fa-f]+|-?(?:0[xX][0-9A-Fa-f]+|\d+)U?")
TYPE_BYTES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4}
TYPE_BYTES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8}


def parse(text: str) -> Module:
    """The one entry of a module with its variables. Device functions are left out: a call of one is refused."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    text = re.sub(r"^\s*\.(?:loc|file|version|target|address_size)\b[^\n]*$", "", text, flags=re.M)
    text = re.sub(r"^\s*\.section\b.*?^\s*}", "", text, flags=re.S | re.M)
    text = re.sub(r"{([^{};]*)}", r"<\1>", text)  # vectors and lists of values: the braces that are left are scopes
    entry = re.search(r"\.entry\s+([\w$.]+)\s*\(([^)]*)\)([^{;]*){", text)
    if entry is None:
        raise UnknownPTX("no .entry with a body")
    end = _closing(text, entry.end())
    outside = text[: entry.start()] + text[end + 1 :]
    function = Function(entry[1], re.findall(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)", entry[2]))
    function.parameters = [(name, kind) for kind, name in function.parameters]
    if limit := re.search(r"\.(?:maxntid|reqntid)\s+([\d,\s]+)", entry[3]):
        x, y, z = ([int(n) for n in limit[1].split(",")] + [1, 1])[:3]
        function.max_threads = x * y * z
    variables = [_variable(m) for s in outside.split(";") if (m := _DECLARATION.search(s.strip()))]
    for statement in re.split(r"[;{}]", text[entry.end() : end]):
        _statement(statement.strip(), function, variables)
    function.instructions.append(Instruction("ret", (), None, "ret"))
    return Module(function, variables)


def _closing(text: str, start: int) -> int:
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start()
    raise UnknownPTX("a function without its closing brace")


def _variable(found: re.Match[str]) -> Variable:
    space, alignment, kind, name, count, values = found.groups()
    numbers = tuple(int(v, 0) for v in re.findall(r"-?\b(?:0x[0-9A-Fa-f]+|\d+)\b", values or ""))
    length = 1 if count is None else int(count or 0)
    return Variable(space, int(alignment or TYPE_BYTES[kind]), kind, name, length, numbers)


def _statement(text: str, function: Function, variables: list[Variable]) -> None:
    while label := re.match(r"([\w$]+):\s*", text):
        function.labels[label[1]] = len(function.instructions)
        text = text[label.end() :]
    if not text or text.startswith((".pragma", ".param")):
        return
    if text.startswith(".reg"):
        kind, names = text.removeprefix(".reg").split(None, 1)
        for name, count in _REGISTERS.findall(names):
            for full in [f"{name}{i}" for i in range(int(count))] if count else [name]:
                if function.registers.setdefault(full, kind[1:]) != kind[1:]:
                    raise UnknownPTX(f"register {full} declared with two types")
    elif declared := _DECLARATION.match(text):
        variables.append(_variable(declared))
    elif text.startswith("."):
        raise UnknownPTX(f"directive {text[:60]!r}")
    else:
        function.instructions.append(_instruction(" ".join(text.split())))


def _instruction(text: str) -> Instruction:
    guard, rest = None, text
    if found := _GUARD.match(text):
        guard, rest = Register(found[2], bool(found[1])), text[found.end() :]
    opcode, _, operands = rest.partition(" ")
    return Instruction(opcode, tuple(_operand(o) for o in _OPERAND.findall(operands)), guard, text)


def _operand(text: str) -> Operand:
    if text.startswith("["):
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise UnknownPTX(f"address {text}")
        base = _operand(found[1])
        assert isinstance(base, (Register, Symbol, Immediate))
        return Address(base, int(found[2] or "0", 0))
    if text == "_":
        return Sink()
    if _NUMBER.fullmatch(text):
        return Immediate(text)
    if text.startswith("!"):
        return Register(text[1:], True)
    return Register(text) if text.startswith("%") else Symbol(text)
