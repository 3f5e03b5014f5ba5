"""The lines that the command line prints, whatever names they hold and whatever the console can write."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def printable(text: str, stream: Any = None) -> str:
    """Gives a text in which escapes stand for what would steer a terminal, and for what a stream (stdout) cannot encode."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    seen = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return seen.encode(encoding, "backslashreplace").decode(encoding)


def say(line: str) -> None:
    """Prints a line."""
    _write(line, sys.stdout)


def complain(message: str, status: int) -> int:
    """Prints an error on standard error; gives the status."""
    _write(f"gpurnn: error: {message}", sys.stderr)
    return status


def one_line(error: BaseException) -> str:
    """Gives an error's text on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{'' if error.filename is None else f'{error.filename}: '}{error.strerror.lower()}"
    if isinstance(error, MemoryError) and not str(error):
        return "out of memory"
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes errors inside name the file that they are about."""
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {one_line(error)}") from error


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Prints the library's warnings inside as lines on standard error."""
    handler, log = _Lines(logging.WARNING), logging.getLogger("gpurnn")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _write(f"gpurnn: {record.levelname.lower()}: {' '.join(record.getMessage().split())}", sys.stderr)


def _write(line: str, stream: Any) -> None:
    if stream is not None:  # it is None where the program was started without one
        print(printable(line, stream), file=stream)
