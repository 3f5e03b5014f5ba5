"""The rules of the house, each a short test over every package."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from helpers import TESTS
from house import Package, Rule, imported, parsed, written

import gpurnn
import gpurnn_kernels

PACKAGES = {
    "gpurnn": Package(Path(gpurnn.__file__).parent, "gpurnn"),
    "gpurnn_kernels": Package(Path(gpurnn_kernels.__file__).parent, "gpurnn_kernels"),
    "bench": Package(TESTS.parent / "bench", "bench"),
    "ptx_emulator": Package(TESTS.parent / "emulator" / "ptx_emulator", "ptx_emulator"),
    "tests": Package(TESTS, ""),
}


def import_circles(package: Package) -> list[str]:
    """One circle of imports among the package's modules, if there is any; types' imports count."""
    modules = package.modules()
    graph = {}
    for module, path in modules.items():
        pairs = imported(module, path)
        names = {full if (full := f"{start}.{name}") in modules else start for start, name in pairs}
        graph[module] = {name for name in names if name in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


FIRST_WORDS = ("Of", "That", "As", "Those", "What", "Whether", "Which")  # the noun would hide in a pronoun


def docstrings_without_a_subject(package: Package) -> list[str]:
    """Docstrings that begin with one of `FIRST_WORDS`."""
    found = []
    for module, path in package.modules().items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                words = (ast.get_docstring(node) or "").split()
                if words and words[0].rstrip(",.:;") in FIRST_WORDS:
                    found.append(f"{module}.{getattr(node, 'name', '')}: {' '.join(words[:6])} ...")
    return found


MOST_PARAMETERS = 8  # that are handed over by position, `self` not counted
# functions that may have more: the product's are the field's own list; an equation's are its operands; one emits a product
LONG = ("gemm", "lstm_cell_grad", "_emit_product")
COMPILED = ("called", "inlined", "intrinsic", "kernel")  # decorators of functions that are compiled into kernels


def compiled_functions(tree: ast.Module) -> set[str]:
    """The functions of a module that are compiled: decorated, or kernels that `named` is given."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and {ast.unparse(one) for one in node.decorator_list} & set(COMPILED):
            found.add(node.name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "named":
            found |= {one.id for one in node.args if isinstance(one, ast.Name)}
    return found


def long_signatures(package: Package) -> list[str]:
    """Functions of more than `MOST_PARAMETERS` parameters; compiled functions and parameters by name alone do not count."""
    found = []
    for module, path in package.modules().items():
        exempt = {*LONG, *compiled_functions(parsed(path))}
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in exempt:
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
                count = len(names) - (names[:1] in (["self"], ["cls"]))
                if count > MOST_PARAMETERS:
                    found.append(f"{module}.{node.name}: {count} parameters")
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def is_own(node: ast.Attribute) -> bool:
    """`self._name` and `cls._name` are the class's own, or inherited."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "super")


def private_attributes(tree: ast.Module) -> set[str]:
    """The private attributes that a module's classes have."""
    own = {one.attr for one in ast.walk(tree) if isinstance(one, ast.Attribute) and is_own(one)}
    for node in ast.walk(tree):
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                own.add(inner.name)
            elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                own.add(inner.target.id)
            elif isinstance(inner, ast.Assign):
                own.update(target.id for target in inner.targets if isinstance(target, ast.Name))
    return set(filter(is_private, own))


NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public, but for their names


def foreign_private_attributes(package: Package) -> list[str]:
    """Places where a module uses a private attribute that belongs to a class of another module."""
    trees = {module: parsed(path) for module, path in package.modules().items()}
    own = {module: private_attributes(tree) for module, tree in trees.items()}
    all_private = {name for names in own.values() for name in names}
    found: list[str] = []
    for module, tree in trees.items():
        foreign = all_private - own[module] - NAMED_TUPLES
        found += [
            f"{module}, line {node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in foreign and not is_own(node)
        ]
    return found


RULES: tuple[Rule, ...] = (import_circles, docstrings_without_a_subject, long_signatures, foreign_private_attributes)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rules(rule: Rule, package: str) -> None:
    assert rule(PACKAGES[package]) == []


BROKEN = {
    import_circles: {
        "a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .inner import b",
        "inner/b.py": "def f():\n    from ..a import g",
    },
    docstrings_without_a_subject: {"a.py": 'class A:\n    def f(self):\n        """Of n: as the others."""'},
    long_signatures: {"a.py": "class A:\n    def f(self, a, b, c, d, e, f, g, h, i): ..."},
    foreign_private_attributes: {
        "a.py": "class A:\n    def __init__(self):\n        self._x = 1",
        "b.py": "def f(a):\n    return a._x",
    },
}
KEPT = {
    "__init__.py": "from .b import B",
    "a.py": '"""A class."""\nfrom . import c\nclass A:\n    def f(self, a, b, c, d, e, f, g, h, *, i):\n        self._x = 1',
    "b.py": "from .a import A\nclass B(A):\n    def g(self, other):\n        return self._x, self._make(), other._make()",
    "c.py": '"""Often this is needed."""\nimport ast',
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_sees_what_breaks_it(rule: Rule, tmp_path: Path) -> None:
    assert len(rule(written(tmp_path / "broken", BROKEN[rule]))) == 1
    assert rule(written(tmp_path / "kept", KEPT)) == []


def test_packages_are_found() -> None:
    for name, package in PACKAGES.items():
        assert len(package.modules()) > 10, name
