"""Ctrl-C while the library is being imported, before the command line can catch it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_in_the_command_line() -> Iterator[None]:
    """Inside, an interrupt ends `gpurnn` and `python -m gpurnn` at once and without a traceback; any other program gets its
    KeyboardInterrupt."""
    name = os.path.splitext(os.path.basename([*sys.argv, ""][0]))[0]  # "-m" until Python has found what it is to run
    try:
        expected = name in ("gpurnn", "-m") and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if expected:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # not in the main thread
        expected = False
    try:
        yield
    finally:
        if expected:
            signal.signal(signal.SIGINT, signal.default_int_handler)
