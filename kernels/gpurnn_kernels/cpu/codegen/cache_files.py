"""Files of machine code. They are read only if they are as they were written, written in one step, and removed when long
unused."""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .cache_folders import distrust, log, warn_once

try:
    import fcntl
except ImportError:  # Windows: processes that start at once each compile
    fcntl = None  # type: ignore[assignment]

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_CHECK = hashlib.sha256().digest_size  # bytes of a file before its contents
_DAY = 86400.0
_UNUSED = 30 * _DAY
_MOST = 64 << 20  # bytes of machine code in a folder: a set of all kernels has 1.4 MB
_PATIENCE = 60.0  # seconds of waiting for another process to compile a kernel


def read(folder: Path, name: str) -> bytes | None:
    """Gives a file's contents. Gives None where it is missing, where somebody else may have written it, or where it is
    damaged; a damaged file is removed."""
    path = folder / name
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb")
    except FileNotFoundError:
        return None
    with file:
        status = os.fstat(file.fileno())
        if reason := distrust(path, status):
            warn_once(f"compiled kernel {path} is not used: {reason}")
            return None
        data = file.read()
    contents = data[_CHECK:]
    if data[:_CHECK] != _checked(name, contents):
        log.warning("compiled kernel %s is damaged: it is compiled again", path)
        with suppress(OSError):
            path.unlink()
        return None
    if time.time() - status.st_mtime > _DAY:
        with suppress(OSError):
            os.utime(path)  # what `sweep` goes by
    return contents


def write(folder: Path, name: str, contents: bytes) -> None:
    """Makes or replaces a file, in one step for all processes that read it."""
    scratch = folder / f"{name}.{os.urandom(8).hex()}.tmp"
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o644), "wb") as file:
            file.write(_checked(name, contents) + contents)
        scratch.replace(folder / name)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise


def _checked(name: str, contents: bytes) -> bytes:
    """Gives a checksum of a file's name and contents, so that other contents and another file's are told apart."""
    return hashlib.sha256(name.encode() + b"\0" + contents).digest()


def sweep(folder: Path) -> None:
    """Removes files that were unused for 30 days, the longest unused ones beyond 64 MiB, and files that broken writers
    left."""
    found = []
    for entry in os.scandir(folder):
        if entry.name.endswith((".bin", ".tmp")) and entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            found.append((status.st_mtime, status.st_size, entry.path))
    total = 0
    for used, size, path in sorted(found, reverse=True):
        total += size
        age = time.time() - used
        if total > _MOST or age > (_DAY if path.endswith(".tmp") else _UNUSED):
            with suppress(OSError):
                os.unlink(path)


class _Wait:
    """The time for which this process waits for others. It becomes zero once one took too long."""

    seconds = _PATIENCE


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Holds a lock so that no other process is inside with the same name: a lock on one byte of a file, which ends with its
    owner. A process that has waited too long, or that has no locks, goes in all the same."""
    try:
        file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o644)
    except OSError:
        yield
        return
    try:
        if fcntl is not None:
            _lock(file, int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]))
        yield
    finally:
        os.close(file)


def _lock(file: int, byte: int) -> None:
    end = time.monotonic() + _Wait.seconds
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
        if time.monotonic() > end:
            _Wait.seconds = 0.0
            log.info("another process has compiled a kernel for over %.0f s: not waiting any longer", _PATIENCE)
            return
        if not threading.main_thread().is_alive():
            return  # the interpreter ends
        time.sleep(0.05)
