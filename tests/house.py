"""The packages that the rules of the house are about, and how a rule reads them."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple


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


Rule = Callable[[Package], list[str]]  # -> the places that break it


def written(folder: Path, files: dict[str, str]) -> Package:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Package(folder, "package")
