"""The folders of machine code: several are read, one is written to, and nobody else may write to any of them.

A file of machine code runs with the rights of the process that loads it. So a folder and a file count only if they belong to
this user or to root and nobody else can write to them. Windows does not tell: there, folders within the user's own count.
"""

import logging
import os
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import config as _config
from numba.misc.appdirs import AppDirs

from ...digest import LOOSE

config: Any = _config  # its stub lacks what environment variables set
log = logging.getLogger("gpurnn")

_POSIX = hasattr(os, "geteuid")


def candidates() -> list[Path]:
    """Gives the folders to try: NUMBA_CACHE_DIR alone where it is set, else the user's cache folder and one beside the
    packages. The latter comes first for root, whose machine code serves all users of an installation. (A frozen program's
    files may be gone at its end, so it has the user's folder alone.)"""
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR).absolute() / "gpurnn"]
    users = Path(AppDirs(appname="gpurnn", appauthor=False).user_cache_dir).absolute()
    if getattr(sys, "frozen", False) or not LOOSE:
        return [users]
    # outside the package, which could be imported after an uninstallation if a folder were left of it
    beside = Path(__file__).resolve().parents[3] / "__pycache__" / "gpurnn-machine-code"
    return [beside, users] if _POSIX and os.geteuid() == 0 else [users, beside]


def reading_folders() -> list[Path]:
    """Gives the folders that exist and may be trusted."""
    found = []
    for folder in candidates():
        with suppress(OSError):
            if reason := distrust(folder, os.stat(folder)):
                warn_once(f"compiled kernels in {folder} are not used: {reason}")
            else:
                found.append(folder)
    return found


@cache
def cache_folder() -> Path | None:
    """Gives the folder to write machine code to: the first that may be trusted and can be written to, or None."""
    for folder in candidates():
        with suppress(OSError):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not distrust(folder, os.stat(folder)):
                tempfile.TemporaryFile(dir=folder).close()
                return folder
    return None


def distrust(path: Path, status: os.stat_result) -> str | None:
    """Says why somebody else might have written a file or folder; None where nobody could."""
    if not _POSIX:
        return None if path.resolve().is_relative_to(Path.home().resolve()) else f"it is not within {Path.home()}"
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}, expected {os.geteuid()} or root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to it ({stat.filemode(status.st_mode)})"
    return None


_told: set[str] = set()


def warn_once(text: str) -> None:
    """Logs a warning at its first time in a process."""
    if text not in _told:
        _told.add(text)
        log.warning("%s", text)
