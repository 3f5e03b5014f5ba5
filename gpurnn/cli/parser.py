"""Command lines whose errors are one line."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

# what `add_subparsers` gives; the class is generic for type checkers only
Commands = Any


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, without the usage."""

    def complain(self, message: str, status: int) -> int:
        print(f"gpurnn: error: {message}", file=sys.stderr)
        return status

    def error(self, message: str) -> NoReturn:
        sys.exit(self.complain(message, 2))


def at_least_one(text: str) -> int:
    """An argument's type: an integer >= 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def command(commands: Commands, run: Callable[[argparse.Namespace], None], name: str, help: str) -> Parser:
    """A subcommand's parser."""
    parser: Parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror.lower()}"
    if isinstance(error, MemoryError) and not str(error):
        return "out of memory"
    return " ".join(str(error).split()) or type(error).__name__
