"""`gpurnn warmup`: the kernels are compiled beforehand, so that no first call waits for a compiler."""

import argparse
import time

from .console import say
from .parser import Commands, command


def add(commands: Commands) -> None:
    command(commands, run, "warmup", "compile, and keep on disk, every kernel that the layers need on this CPU")


def run(args: argparse.Namespace) -> None:
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

        cpu.warmup(report)
    seconds = time.perf_counter() - begin
    say(f"{count} kernels ready in {seconds:.1f} s, kept in {cache_folder() or 'no folder: none can be written to'}")
