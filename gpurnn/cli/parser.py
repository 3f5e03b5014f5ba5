"""Command lines whose errors are one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gpurnn_kernels.spec import REDUCED

from .console import complain

# what `add_subparsers` gives; the class is generic for type checkers only
Commands = Any


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        sys.exit(complain(message, 2))


def at_least(least: int) -> Callable[[str], int]:
    """Gives an argument's type: an integer that is not smaller."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {number}")
        return number

    return convert


def command(commands: Commands, run: Callable[[argparse.Namespace], None], name: str, help: str) -> Parser:
    """Adds a subcommand and gives its parser."""
    parser: Parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def add_precision(parser: argparse.ArgumentParser, help: str) -> None:
    """Adds the option --precision."""
    parser.add_argument("--precision", choices=("float32", *REDUCED, "tf32"), help=help)


def check_output(output: Path, *inputs: Path | None) -> None:
    """Raises ValueError if what is to be written is one of the files that are read."""
    for path in inputs:
        if path is not None and output.exists() and path.exists() and output.samefile(path):
            raise ValueError(f"{output}: the output would take the place of {'the input' if path == output else path}")
