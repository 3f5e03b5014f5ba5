"""A .npy file that is there whole or not at all."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np


class NewNpy:
    """An array on disk, being written."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._map: np.ndarray[Any, np.dtype[Any]] | None
        if 0 in shape:  # nothing to map
            self._map = np.empty(shape, dtype)
            with path.open("wb") as file:
                np.save(file, self._map)
            return
        self._map = np.lib.format.open_memmap(path, "w+", dtype, shape)
        _reserve(path)

    def __setitem__(self, index: Any, block: np.ndarray[Any, np.dtype[Any]]) -> None:
        assert self._map is not None
        self._map[index] = block

    def close(self) -> None:
        if isinstance(self._map, np.memmap):
            self._map.flush()
        self._map = None


@contextmanager
def new_npy(target: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[NewNpy]:
    """Writes beside the target, which is replaced at the end; nothing is left if anything goes wrong before.

    Raises OSError at once if the disk has no room, and ValueError if the target is something else than a file.
    """
    real = Path(os.path.realpath(target))
    if real.exists() and not real.is_file():
        raise ValueError(f"{target}: not a regular file")
    scratch = real.with_name(f".{real.name}.{secrets.token_hex(6)}.tmp")
    with _signals_raise():
        try:
            array = NewNpy(scratch, shape, dtype)
            try:
                yield array
            finally:
                array.close()
            scratch.replace(real)
        except FileNotFoundError as error:
            if real.parent.is_dir():
                raise
            raise FileNotFoundError(error.errno, "no such folder", str(real.parent)) from None
        finally:
            with suppress(FileNotFoundError):
                scratch.unlink()


def _reserve(path: Path) -> None:
    """Without it, a full disk would end the process at the first write to the map."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path.parent)) from None


@contextmanager
def _signals_raise() -> Iterator[None]:
    """A polite end (SIGTERM, SIGHUP) unwinds the stack, as an interrupt from the keyboard does."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {}
    for name in "SIGTERM", "SIGHUP":
        with suppress(AttributeError, ValueError):  # not on this system; not in the main thread
            number = getattr(signal, name)
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
