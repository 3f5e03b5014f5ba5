"""The cache of machine code on disk.

Numba's own cache knows a kernel by the time stamp and size of one file, and numbers its data files by an index that two
processes may write at once. Here a file's name is a digest of all that its contents depend on: every source file of this
package, the versions, the signature, the target. A stale entry cannot be found, and there is no index to race for.
"""

import hashlib
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config as _config
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

config: Any = _config  # its stub lacks what environment variables set
log = logging.getLogger("gpurnn")

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def source_digest() -> str:
    """A digest of every source file of the kernels and of what compiles them."""
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version)).encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"\0{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def cache_folder() -> Path | None:
    """NUMBA_CACHE_DIR, or beside the kernels, or the user's cache folder: the first that can be written to, or None."""
    beside = _PACKAGE / "__pycache__" / "machine_code"
    users = Path(AppDirs(appname="gpurnn", appauthor=False).user_cache_dir)
    configured = config.CACHE_DIR
    for folder in [Path(configured) / "gpurnn"] if configured else [beside, users]:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    log.warning("no folder for compiled kernels can be written to: every process compiles them again")
    return None


class KernelCache(_Cache):
    """What a Numba dispatcher or C callback asks for its machine code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._name = function.__qualname__

    @property
    def cache_path(self) -> str | None:
        folder = cache_folder()
        return None if folder is None else str(folder)

    def _path(self, signature: Any, context: Any) -> Path | None:
        folder = cache_folder()
        if folder is None:
            return None
        key = (source_digest(), self._name, str(signature), context.codegen().magic_tuple(), config.OPT)
        return folder / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}.bin"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        path = self._path(sig, target_context)
        if path is None:
            return None
        try:
            data = pickle.loads(path.read_bytes())
            return CompileResultCacheImpl(self._function).rebuild(target_context, data)
        except FileNotFoundError:
            return None
        except Exception as error:
            log.warning("compiled kernel %s cannot be read (%s): it is compiled again", path, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        path = self._path(sig, data.target_context)
        if path is None:
            return
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            scratch.write_bytes(dumps(CompileResultCacheImpl(self._function).reduce(data)))
            scratch.replace(path)
        except OSError as error:
            log.warning("compiled kernel %s cannot be kept: %s", path, error)
            with suppress(OSError):
                scratch.unlink()

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...
