"""A digest of this package as it would be imported now. Machine code on disk is named by it.

It is taken once before any other module of the package is read (`AT_START`), and again before machine code is loaded or saved.
So an upgrade in between shows, and code of one version is never saved under the other's name.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any

LOOSE = type(__spec__.loader) is SourceFileLoader  # the modules are files that can be read


def digest() -> str | None:
    """Gives the digest; None where a module's contents cannot be read."""
    found = hashlib.sha256()
    try:
        for name, contents in _files() if LOOSE else _modules():
            found.update(f"\0{name}\0{len(contents)}\0".encode() + contents)
    except Exception:  # of importers that are not Python's own, too
        return None
    return found.hexdigest()


def _files() -> Iterator[tuple[str, bytes]]:
    """Gives every source file: its name and its contents."""
    root = os.path.dirname(__file__)
    names = [os.path.join(folder, file) for folder, _, files in os.walk(root) for file in files if file.endswith(".py")]
    for name in sorted(names):
        with open(name, "rb") as file:
            yield os.path.relpath(name, root), file.read()


def _modules() -> Iterator[tuple[str, bytes]]:
    """Gives every module of an archive or a frozen program. Its importer has to list all modules that have been imported."""
    package = sys.modules[__package__]
    listed = dict(_listed(package.__path__, f"{__package__}."))
    missing = {name for name in sys.modules if name.startswith(f"{__package__}.")} - set(listed)
    if missing:
        raise ImportError(f"modules that their importer does not list: {sorted(missing)}")
    listed[__package__] = _contents(package.__spec__)
    yield from sorted(listed.items())


def _listed(path: Any, prefix: str) -> Iterator[tuple[str, bytes]]:
    import pkgutil

    for finder, name, is_package in pkgutil.iter_modules(path, prefix):
        spec: Any = finder.find_spec(name, None)
        yield name, _contents(spec)
        if is_package:
            yield from _listed(spec.submodule_search_locations, f"{name}.")


def _contents(spec: Any) -> bytes:
    """Gives a module's file in its archive or, where a frozen program has nothing else, its code."""
    try:
        return bytes(spec.loader.get_data(spec.origin))
    except (AttributeError, OSError):
        return _written(spec.loader.get_code(spec.name)).encode()


def _written(value: Any) -> str:
    """Writes a code object, or a constant of one, as text that is the same in every process. (`marshal`'s bytes depend on
    who else has a constant.)"""
    if isinstance(value, CodeType):
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        counts = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
        constants = [_written(constant) for constant in value.co_consts]
        return repr((value.co_qualname, counts, names, value.co_code, value.co_exceptiontable, constants))
    if isinstance(value, frozenset):
        return repr(sorted(map(repr, value)))
    return repr(value)


AT_START = digest()
