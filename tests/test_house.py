"""The rules of the house, each a short test over every package that keeps it.

`RULES` names the packages that break a rule still. Such a test is expected to fail: once the package is clean, the test says
so by passing, and the package's name leaves the table.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import TESTS

import gpurnn
import gpurnn_kernels


class Package(NamedTuple):
    """A folder of modules. Without a name its files are modules of their own, as pytest imports tests."""

    folder: Path
    name: str

    def modules(self) -> dict[str, Path]:
        """The modules by the names under which they are imported."""
        found = {}
        for path in sorted(self.folder.rglob("*.py")):
            parts = path.relative_to(self.folder).with_suffix("").parts
            if self.name:
                found[".".join((self.name, *parts)).removesuffix(".__init__")] = path
            elif "written" not in parts:  # data that released versions wrote
                found[parts[-2] if parts[-1] == "__init__" else parts[-1]] = path
        return found


PACKAGES = {
    "gpurnn": Package(Path(gpurnn.__file__).parent, "gpurnn"),
    "gpurnn_kernels": Package(Path(gpurnn_kernels.__file__).parent, "gpurnn_kernels"),
    "bench": Package(TESTS.parent / "bench", "bench"),
    "ptx_emulator": Package(TESTS.parent / "emulator" / "ptx_emulator", "ptx_emulator"),
    "tests": Package(TESTS, ""),
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(module: str, path: Path) -> Iterator[tuple[str, str]]:
    """The imports of a module wherever they stand, in functions and for types too: (package, name) pairs in full."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*around, *([node.module] if node.module else [])])
            yield from ((start, alias.name) for alias in node.names)


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
LONG = ("gemm",)  # functions that may have more: the product's are the field's own list


def long_signatures(package: Package) -> list[str]:
    """Functions of more than `MOST_PARAMETERS` parameters; those that are given by name alone do not count."""
    found = []
    for module, path in package.modules().items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in LONG:
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


# each rule, and the packages that do not keep it yet
RULES: dict[Callable[[Package], list[str]], tuple[str, ...]] = {
    import_circles: (),
    docstrings_without_a_subject: ("gpurnn_kernels",),
    long_signatures: ("gpurnn_kernels",),
    foreign_private_attributes: (),
}


@pytest.mark.parametrize(
    ("rule", "package"),
    [
        pytest.param(
            rule,
            package,
            id=f"{name}-{rule.__name__}",
            marks=pytest.mark.xfail(reason="is not cleaned yet", strict=True) if name in not_yet else (),
        )
        for rule, not_yet in RULES.items()
        for name, package in PACKAGES.items()
    ],
)
def test_rules(rule: Callable[[Package], list[str]], package: Package) -> None:
    assert rule(package) == []


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


def written(folder: Path, files: dict[str, str]) -> Package:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Package(folder, "package")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_sees_what_breaks_it(rule: Callable[[Package], list[str]], tmp_path: Path) -> None:
    assert len(rule(written(tmp_path / "broken", BROKEN[rule]))) == 1
    assert rule(written(tmp_path / "kept", KEPT)) == []


def test_packages_are_found() -> None:
    for name, package in PACKAGES.items():
        assert len(package.modules()) > 10, name
