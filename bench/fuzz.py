"""`python -m bench soak --fuzz N`: random calls on arrays between guard pages must give the bits that they give on ordinary
ones, and write nowhere else. They run in child processes, which say the seed before each: one that crashes is known by it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from rich.console import Console

import gpurnn
from bench.guarded import Guards
from bench.problems import ORDINARY, Problem, difference

EACH = 250  # cases of a child
LIMIT_S = 3600  # of a child: with no compiled kernel at hand, the first compiles for minutes


def share_small_calls() -> None:
    """Calls of few steps and rows run on several threads, too, where they are not worth it."""
    from gpurnn_kernels.cpu import schedule

    schedule._LEAST_CALL = 0.0


def case(seed: int) -> str | None:
    """What is wrong with the problem of a seed."""
    problem, rng = Problem(seed), np.random.default_rng(seed)
    guards = Guards(rng)
    with gpurnn.threads(problem.threads), guards.allocations():
        layer = problem.layer()
    for kind in problem.kinds:
        expected = problem.run(kind, problem.layer(), ORDINARY)
        with gpurnn.threads(problem.threads), guards.allocations():
            found = problem.run(kind, layer, guards)
        if wrong := guards.difference() or difference(found, expected):
            return f"{kind}: {wrong}"
    return None


def run(count: int, seed: int, console: Console) -> int:
    """Exit status: 1 with a line that has the seed and the configuration, when a case is wrong."""
    for first in range(seed, seed + count, EACH):
        command = [sys.executable, "-X", "faulthandler", "-m", "bench.fuzz", str(first), str(min(EACH, seed + count - first))]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S)
        if child.returncode:
            last, _, wrong = child.stdout.strip().rpartition("\n")[2].partition(" ")
            text = wrong or f"the process ended with status {child.returncode}"
            console.print(f"seed {last}: {Problem(int(last))}: {text}", highlight=False, soft_wrap=True)
            console.print(f"again: python -m bench soak --fuzz 1 --seed {last}", highlight=False)
            return 1
    console.print(f"fuzz: {count} calls between guard pages, seeds from {seed} on: nothing wrong", highlight=False)
    return 0


def main(first: int, count: int) -> int:
    """A child's part."""
    share_small_calls()
    for seed in range(first, first + count):
        print(seed, flush=True)
        if wrong := case(seed):
            print(seed, wrong, flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
