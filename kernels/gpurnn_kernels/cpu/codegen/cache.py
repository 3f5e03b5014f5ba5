"""The cache of machine code on disk.

Numba's own cache knows a kernel by the time stamp and size of one file, and numbers its data files by an index that two
processes may write at once. Here a file's name is a digest of all that its contents depend on: every module of this package,
the versions, the signature, the target. A stale entry cannot be found, and there is no index to race for.
"""

import hashlib
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from ...digest import AT_START, digest
from . import cache_files as files
from .cache_folders import cache_folder as cache_folder
from .cache_folders import candidates, config, reading_folders, warn_once
from .cache_folders import log as log

_VERSIONS = numba.__version__, llvmlite.__version__, sys.version


class _Compiling:
    """A record of what this process has logged about its compiling."""

    since: float | None = None
    told = False
    swept = False


def _announce() -> None:
    """Logs once, when this process has compiled for more than a second, that kernels are being compiled. Called before each
    kernel."""
    now = time.monotonic()
    if _Compiling.since is None:
        _Compiling.since = now
    elif not _Compiling.told and now - _Compiling.since > 1:
        _Compiling.told = True
        log.info("compiling kernels, kept in %s", cache_folder() or "no folder")


@cache
def _usable() -> bool:
    """Tells whether machine code of this process's modules has a name: they can be read, and have not changed since the
    start."""
    if AT_START is None:
        warn_once("the kernels' modules cannot be read: compiled kernels are not kept, every process compiles them again")
        return False
    return _unchanged()


def _unchanged() -> bool:
    """Tells whether the modules are still what they were before any was read. If not, it is unknown which were read before
    the change."""
    if digest() == AT_START:
        return True
    log.info("gpurnn's kernels have changed since this process has read them: what it compiles is not kept")
    return False


class KernelCache(_Cache):
    """The cache that a Numba dispatcher or C callback asks for its machine code."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        target = cpu_target.target_context.codegen().magic_tuple()
        key = (AT_START, _VERSIONS, function.__qualname__, str(signature), target, config.OPT)
        self._file = f"{function.__qualname__}-{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}.bin"

    @property
    def cache_path(self) -> str | None:
        folder = cache_folder()
        return None if folder is None else str(folder)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Makes other processes that want the same kernel wait: one compiles it inside, and the others find it afterwards."""
        folder = cache_folder() if _usable() and not self._found() else None
        if folder is None:
            yield
        else:
            with files.alone(folder, self._file):
                yield

    def _found(self) -> bool:
        return any((folder / self._file).exists() for folder in reading_folders())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        for folder in reading_folders() if _usable() else ():
            try:
                contents = files.read(folder, self._file)
                if contents is not None:
                    return CompileResult._rebuild(target_context, *pickle.loads(contents))
            except Exception as error:
                log.warning("compiled kernel %s cannot be read (%s): it is compiled again", folder / self._file, error)
        _announce()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if not _usable():
            return
        folder = cache_folder()
        if folder is None:
            tried = ", ".join(str(candidate) for candidate in candidates())
            warn_once(
                "no folder for compiled kernels can be written to, or be trusted: every process compiles them again; "
                f"tried {tried}; NUMBA_CACHE_DIR names another"
            )
        elif _unchanged():
            self._keep(folder, data)

    def _keep(self, folder: Path, data: Any) -> None:
        try:
            files.write(folder, self._file, dumps(data._reduce()))
            if not _Compiling.swept:
                _Compiling.swept = True
                files.sweep(folder)
        except OSError as error:
            warn_once(f"compiled kernels cannot be kept in {folder}: {error.strerror}")

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...
