"""Rules of the CPU backend's rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import Package, Rule, imported, parsed, written

import gpurnn_kernels

CPU = Package(Path(gpurnn_kernels.__file__).parent / "cpu", "gpurnn_kernels.cpu")

# the rooms of the CPU backend, and the rooms below each, from which alone it imports
ROOMS = {
    "codegen": (),
    "products": ("codegen",),
    "threads": ("codegen", "products"),
    "passes": ("codegen", "threads", "products"),
    "cells": ("codegen", "threads", "products", "passes"),
    "programs": ("codegen", "threads", "products", "passes", "cells"),
    "engine": ("codegen", "threads", "products", "passes", "cells", "programs"),
}


def in_rooms(package: Package) -> Iterator[tuple[str, str, Path]]:
    """The modules within a package's rooms: (room, name below the package, file)."""
    for module, path in package.modules().items():
        if module != package.name:
            name = module.removeprefix(f"{package.name}.")
            yield name.partition(".")[0], name, path


def imports_that_run_up(package: Package) -> list[str]:
    """Imports of a room that does not stand below, and rooms that the table does not know."""
    found = []
    for room, name, path in in_rooms(package):
        if room not in ROOMS:
            found.append(f"{name}: expected a room of {', '.join(ROOMS)}")
            continue
        for start, imports in imported(f"{package.name}.{name}", path):
            full = f"{start}.{imports}"
            other = full.removeprefix(f"{package.name}.").partition(".")[0]
            if full.startswith(f"{package.name}.") and other not in (room, *ROOMS[room]):
                found.append(f"{name} imports {full}")
    return found


def questions_for_the_cell(package: Package) -> list[str]:
    """Places outside `cells` that ask which cell a layer has; its name in a text does not count."""
    found = []
    for room, name, path in in_rooms(package):
        tree = parsed(path)
        told = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for inner in ast.walk(node)}
        found += [
            f"{name}, line {node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr in ("cell", "variant")
            and room != "cells"
            and id(node) not in told
        ]
    return found


EMITTERS = ("codegen", "products")  # rooms that emit LLVM code


def emitters_elsewhere(package: Package) -> list[str]:
    """Modules outside `EMITTERS` that import llvmlite."""
    return [
        name
        for room, name, path in in_rooms(package)
        if room not in EMITTERS and any(start.partition(".")[0] == "llvmlite" for start, _ in imported(name, path))
    ]


TUNING = ("programs.blocking", "threads.partition")
# numbers in other modules that are no tuning
GIVEN = {
    "codegen.aligned": "ALIGNMENT",  # a fact of processors
    "codegen.amx_permission": "_ARCH_PRCTL _REQUEST _TILES",  # the system's numbers
    "codegen.arch": "_MXCSR _FPCR",  # bits of registers
    "codegen.cache_files": "_DAY _UNUSED _MOST _PATIENCE",  # limits of files on disk
    "codegen.descriptors": "ROW_ENTRY _SHARE_BYTES",  # bytes of records
    "codegen.target": "LINE",  # a fact of processors
    "codegen.vector": "_MOST_CONSTANTS",  # room in a table, which refuses more
    "products.amx.instructions": "ROW PART BLOCK _MEETINGS _TILES _A _B",  # the unit's shapes; bfloat16 parts that meet
    "products.amx.strips": "LANES PAIRS DEPTH SUMS_BYTES _HIGH _HALF",  # the unit's shapes; bits of a float32
    "products.formats.bf16": "_HIGH",  # bits of floats
    "products.formats.int8": "_ZERO_POINT _MAGIC _MOST_FACTOR",  # the format's numbers, and float32's
    "products.layout": "TAIL_WIDTHS",  # widths that have kernels
    "products.microkernel": "WIDTHS",  # widths that have kernels
    "passes.amx_gradients": "_GATES _A",  # the most gates; bytes of a layout
    "passes.weight_gradients": "MOST_SUMS X H_PREV FED M",  # the most gates and dq; names of sources
    "threads.clock": "CLOCK_WORDS",  # bytes of a record
    "threads.commands": "HELD_UP ALONE INTERRUPTED REGION_ENDS",  # names of results; a mark
    "threads.interrupts": "FORKED",  # a mark
    "threads.layout": "BLOCK MOST_THREADS OWNER ALL_SIGNALS CLOCK PIECES PARKED LOCK ID PIECES_SHIFT PHASE_SHIFT MASK PHASES",
    "programs.call": "_TEAM _HEAD OVERLAP _BIND X Y BETWEEN H C",  # a layout; a mark; names of arrays
    "programs.command": "_WORDS",  # bytes of a layout
}
# tuning that is compiled into kernels below `programs`, and so stands beside them
COMPILED_IN = {
    "codegen.bundle": "BUNDLE",
    "codegen.elementwise": "ROWS_AT_ONCE",
    "codegen.target": "_L1_BYTES _SUMS",
    "products.amx.strips": "ROWS K_BLOCKS",
    "products.gemm": "NR_BACK",
    "products.microkernel": "_SEGMENT _SEGMENTS _UNROLLED",
    "passes.amx_gradients": "ROWS_DEEP UNITS _WIDTH",
    "passes.backward": "_LOOKS",
    "passes.weight_gradients": "DEPTH WIDTH PANELS",
    "threads.commands": "LOOKS_BEFORE_PARKING LONELY_COMMANDS LONELY_FOR REGION_LOOKS",
    "threads.interrupts": "EVERY",
    "threads.phases": "MOMENT SPINS STALL LONG_STALL NAP",
    "threads.team": "_SETTLED _MOVED_AGAIN _SHORTEST_REST _LONGEST_REST _MOST_WAITED",
}


def has_number(node: ast.AST) -> bool:
    """Tells whether an expression holds a number; calls' arguments, comprehensions and functions do not count."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
    if isinstance(node, (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)):
        return False
    if isinstance(node, ast.Call) and ast.unparse(node.func) not in ("range", "min", "max"):
        return False
    return any(has_number(inner) for inner in ast.iter_child_nodes(node))


def numbers_of(tree: ast.Module) -> set[str]:
    """The upper-case names that a module gives to numbers, or to expressions, tuples and tables of numbers."""
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and has_number(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [inner.id for one in targets for inner in ast.walk(one) if isinstance(inner, ast.Name)]
            found |= {name for name in names if name.isupper()}
    return found


def numbers_elsewhere(package: Package) -> list[str]:
    """Numbers outside `TUNING` that neither `GIVEN` nor `COMPILED_IN` knows."""
    found = []
    for _, name, path in in_rooms(package):
        known = {*GIVEN.get(name, "").split(), *COMPILED_IN.get(name, "").split()}
        if name not in TUNING:
            found += [f"{name}.{constant}" for constant in sorted(numbers_of(parsed(path)) - known)]
    return found


RULES: tuple[Rule, ...] = (imports_that_run_up, questions_for_the_cell, emitters_elsewhere, numbers_elsewhere)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rules_of_rooms(rule: Rule) -> None:
    assert rule(CPU) == []


def test_exceptions_of_numbers_are_there() -> None:
    """A number that has moved or gone leaves the tables, too."""
    modules = {name: path for _, name, path in in_rooms(CPU)}
    for table in (GIVEN, COMPILED_IN):
        for name, constants in table.items():
            assert set(constants.split()) <= numbers_of(parsed(modules[name])), name


BROKEN = {
    imports_that_run_up: {"codegen/a.py": "def f():\n    from ..cells.b import g", "cells/b.py": "from ..codegen import c"},
    questions_for_the_cell: {"cells/a.py": "spec.cell", "passes/b.py": "def f(spec):\n    return {'lstm': 1}[spec.cell]"},
    emitters_elsewhere: {"cells/a.py": "from llvmlite import ir", "codegen/b.py": "from llvmlite import ir"},
    numbers_elsewhere: {"threads/a.py": "_LOOKS: int = 4 if f() else 2", "threads/partition.py": "LOOKS = 16"},
}
KEPT = {
    "__init__.py": "from .engine import plan",
    "engine.py": "from .cells.a import f\ndef plan(spec):\n    return f'{spec.cell}: {f(spec)}'",
    "cells/a.py": "from ..codegen.b import INT\ndef f(spec):\n    return spec.cell == 'lstm'",
    "codegen/b.py": "from llvmlite import ir\nINT = ir.IntType(32)\nALL = (INT,)\nLINE: int",
    "programs/blocking.py": "ROWS = 24",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_of_rooms_sees_what_breaks_it(rule: Rule, tmp_path: Path) -> None:
    assert len(rule(written(tmp_path / "broken", BROKEN[rule]))) == 1
    assert rule(written(tmp_path / "kept", KEPT)) == []


def test_rooms_are_found() -> None:
    assert {room for room, _, _ in in_rooms(CPU)} == set(ROOMS)
