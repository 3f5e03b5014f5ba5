"""Signals that ask the program to end: it leaves nothing behind."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn


@contextmanager
def signals_raise() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP unwind the stack inside, as an interrupt from the keyboard does."""

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
