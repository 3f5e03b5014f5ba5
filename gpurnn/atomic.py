"""Files that are written whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(target: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Gives a file to write to, which takes the target's place at the end; nothing is left if anything goes wrong before.

    Links are followed. A file that was there hands on its permissions and its owner, a new one follows the umask. Raises
    ValueError if the target is something else than a file, and OSError that names the target, not the file beside it.
    """
    real, before = _found(target)
    scratch = real.with_name(f".gpurnn-{secrets.token_hex(8)}.tmp")
    mode = 0o666 if before is None else 0o600  # until it has the owner and the permissions of the one before
    try:
        with open(scratch, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
            yield file
            if before is not None and hasattr(os, "fchown"):
                _hand_on(before, file.fileno())
        os.replace(scratch, real)
    except OSError as error:
        if error.errno is None or error.filename not in (None, os.fspath(scratch)):
            raise
        if error.errno == errno.ENOENT and not real.parent.is_dir():
            raise FileNotFoundError(error.errno, "no such folder", os.fspath(real.parent)) from None
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(target)) from None
    finally:
        with suppress(FileNotFoundError):
            scratch.unlink()


def _found(target: str | os.PathLike[str]) -> tuple[Path, os.stat_result | None]:
    """Gives the file that a path leads to, and its status; None for that if there is no file yet."""
    real = Path(os.path.realpath(target))
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return real, None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(target))
    # a link of /proc can lead to a file whose name is gone
    if not stat.S_ISREG(found.st_mode) or not real.exists():
        raise ValueError(f"{os.fspath(target)}: not a regular file")
    return real, found


def _hand_on(before: os.stat_result, handle: int) -> None:
    """Gives an open file the permissions of another and, where this user may, its owner."""
    with suppress(PermissionError):
        os.fchown(handle, before.st_uid, before.st_gid)
    os.fchmod(handle, stat.S_IMODE(before.st_mode) & 0o777)
