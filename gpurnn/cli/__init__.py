"""The command line, `gpurnn`: one file for each subcommand, which imports what it needs when it runs."""

import os
import sys
from collections.abc import Sequence

from . import convert, demo, info, inspect, run, warmup
from .parser import Parser, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, 1 for an error, 2 for wrong usage, 130 for an interrupt."""
    parser = Parser("gpurnn", description="LSTM and GRU layers as Numba kernels.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (info, demo, run, convert, inspect, warmup):
        command.add(commands)
    try:
        args = parser.parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return parser.complain("interrupted", 130)
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        return parser.complain(one_line(error), 1)
    return 0


def _version() -> str:
    from importlib.metadata import version

    return f"gpurnn {version('gpurnn')}"
