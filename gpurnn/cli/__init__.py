"""The command line, `gpurnn`: one file for each subcommand, which imports what it needs when it runs."""

import os
import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, 1 for an error, 2 for wrong usage, 130 for an interrupt."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        print("gpurnn: error: interrupted", file=sys.stderr)
        return 130


def _run(argv: Sequence[str] | None) -> int:
    from .console import complain, one_line, warnings_shown
    from .signals import signals_raise

    try:
        with warnings_shown(), signals_raise():
            args = _parser().parse_args(argv)
            args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        return complain(one_line(error), 1)
    return 0


def _parser() -> Any:
    from .. import __version__
    from . import convert, demo, info, inspect, run, warmup
    from .parser import Parser

    parser = Parser("gpurnn", description="LSTM and GRU layers as Numba kernels.")
    parser.add_argument("--version", action="version", version=f"gpurnn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (info, demo, run, convert, inspect, warmup):
        command.add(commands)
    return parser
