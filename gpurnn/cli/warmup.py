"""`gpurnn warmup`: the kernels are compiled beforehand, so that no first call waits for a compiler."""

import argparse
import time

from gpurnn_kernels.spec import REDUCED

from .console import say
from .parser import Commands, at_least, command

CELLS = {"lstm": "lstm", "gru": "gru_before", "gru-after": "gru_after"}  # as the kernels name them
DTYPES = ("float32", "float64")


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = command(commands, run, "warmup", "compile, and keep on disk, the kernels that layers need on this CPU")
    parser.add_argument(
        "--cells", nargs="+", choices=CELLS, default=list(CELLS), help="those that are needed: gru-after has reset_after=True"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="those that are needed")
    parser.add_argument(
        "--precision", nargs="+", choices=REDUCED, default=[], help="those that float32 layers have beside float32"
    )
    parser.add_argument("--jobs", type=at_least(1), default=1, metavar="N", help="processes that compile at once (1)")


def run(args: argparse.Namespace) -> None:
    """Compiles with a progress bar."""
    from gpurnn_kernels import cpu
    from gpurnn_kernels.cpu.codegen.cache import cache_folder

    from .progress import progress

    begin = time.perf_counter()
    count = 0
    with progress("kernels") as update:

        def report(done: int, of: int, name: str) -> None:
            nonlocal count
            count = of
            update(done, of, name)

        jobs = args.jobs if cache_folder() else 1  # without a folder, other processes would compile in vain
        cpu.warmup(report, [CELLS[name] for name in args.cells], args.dtype, jobs, args.precision)
    seconds = time.perf_counter() - begin
    say(f"{count} kernels ready in {seconds:.1f} s, kept in {cache_folder() or 'no folder: none can be written to'}")
