"""`python -m bench`: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bench.commands import beside, cold, infer, step, train
from bench.cuda import command as cuda
from bench.cuda import model as predictions
from bench.harness import cases, models
from bench.harness.compare import Report, compare, read_rows
from bench.harness.contest import Settings
from bench.harness.errors import BenchError
from bench.harness.machine import cpu_count, describe
from bench.harness.team import measure_limits
from bench.reports import precision
from bench.reports.report import print_limits

RESULTS = Path(__file__).resolve().parent / "results"
TABLE_WIDTH = 200  # columns; a narrower terminal wraps the lines, which can still be read
BENCHES = {"infer": infer, "step": step, "train": train}


def positive(text: str) -> int:
    """An integer >= 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, received {value}")
    return value


def not_negative(text: str) -> int:
    """An integer >= 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer >= 0, received {value}")
    return value


def seconds(text: str) -> float:
    """A number > 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected seconds > 0, received {value}")
    return value


def input_size(text: str) -> int | None:
    """`same` for I = H, else I."""
    return None if text == "same" else positive(text)


def default_threads() -> list[int]:
    """One, and all."""
    return sorted({1, cpu_count()})


def grid_of(arguments: argparse.Namespace) -> tuple[str, list[cases.Case]]:
    """The grid's name (`custom` when any of its axes was given) and its cases."""
    threads = arguments.threads or default_threads()
    if arguments.grid in models.GRIDS:
        return models_of(arguments, threads)
    by_bench = {
        "infer": lambda: cases.infer_grid(arguments.grid, threads),
        "step": lambda: cases.step_grid(arguments.grid),
        "train": lambda: cases.train_grid(arguments.grid, threads),
    }
    grid = by_bench[arguments.bench]()
    axes = {
        "cells": arguments.cells,
        "hidden": arguments.hidden,
        "batch": arguments.batch,
        "inputs": arguments.input,
        "seq": getattr(arguments, "seq", None),
        "threads": arguments.threads,
    }
    given = {name: value for name, value in axes.items() if value}
    chosen = cases.Grid(**{**vars(grid), **given})
    return "custom" if given else arguments.grid, chosen.cases()


def models_of(arguments: argparse.Namespace, threads: Sequence[int]) -> tuple[str, list[cases.Case]]:
    """The name and cases of a grid of models, which its axes narrow."""
    axes = {"cell": arguments.cells, "hidden": arguments.hidden, "batch": arguments.batch, "seq": arguments.seq}
    given = {axis: values for axis, values in axes.items() if values}
    found = [
        case
        for case in models.model_cases(arguments.grid, arguments.only, threads)
        if all(getattr(case, axis) in values for axis, values in given.items())
    ]
    if not found:
        raise BenchError(f"grid {arguments.grid} has no such case")
    return "custom" if given or arguments.only else arguments.grid, found


def peers_of(arguments: argparse.Namespace) -> list[str]:
    """The peers asked for; by default all, but for the baseline beside whole models, which it takes minutes for."""
    if arguments.peers is not None:
        return list(arguments.peers)
    return [peer for peer in cases.PEERS if arguments.grid not in models.GRIDS or peer != cases.BASELINE]


def run_comparison(arguments: argparse.Namespace, console: Console) -> int:
    """infer, step or train."""
    bench = BENCHES[arguments.bench]
    name, chosen = grid_of(arguments)
    path = arguments.json or RESULTS / f"{arguments.bench}-{name}.json"
    report = Report(arguments.bench, name, Settings(arguments.rounds, arguments.sample, arguments.retries))
    try:
        names = cases.implementations(peers_of(arguments), getattr(arguments, "precision", [cases.FLOAT32]))
        compare(report, chosen, bench.measure(names), path, console)
    except KeyboardInterrupt:
        console.print(f"stopped; what was measured is in {path}")
        return 130
    if report.rows:
        bench.show(console, report)
        if arguments.plot:
            draw(path, arguments.plot)
    for name, reason in report.missing.items():
        console.print(f"left out: {name}: {reason}", highlight=False)
    for error in report.errors:
        console.print(f"[red]error: {error}[/red]", highlight=False)
    console.print(f"written: {path}", highlight=False, soft_wrap=True)
    return bool(report.errors) or not report.rows


def run_limits(threads: Sequence[int], path: Path, console: Console) -> int:
    """FMA peak, SGEMM and reading rate for each thread count."""
    found = [measure_limits(count) for count in threads]
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"bench": "limits", "machine": describe(), "limits": [asdict(limits) for limits in found]}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print_limits(console, found)
    return 0


def draw(rows: Path, figure: Path) -> None:
    """The figure of a file of rows."""
    try:
        from bench.reports import plot, precision_plot
    except ImportError as error:
        raise BenchError(f"no figure without matplotlib ({error})") from None
    found, machine = read_rows(rows)
    if precision.of_reduced(found):
        precision_plot.plot(found, figure, machine)
    else:
        plot.plot(found, figure, machine)


def write_table(rows: Path, to: Path | None) -> int:
    """The tables of a file of rows, in Markdown."""
    text = precision.markdown(*read_rows(rows))
    if to is None:
        print(text, end="")
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text)
    return 0


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="python -m bench", description="gpurnn and its peers, measured side by side")
    commands = top.add_subparsers(dest="bench", required=True)
    helps = {
        "infer": "whole sequences, forward",
        "step": "latency of one step of a stream",
        "train": "forward and backward",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        grids = ("quick", "full", *(models.GRIDS if name == "infer" else ()))
        command.add_argument(
            "--grid", choices=grids, default="quick", help="models: whole models; models-large: those that take long"
        )
        command.add_argument("--cells", nargs="+", choices=cases.CELLS, help="gru: reset before; gru-after: reset after")
        command.add_argument("--hidden", nargs="+", type=positive, metavar="H")
        command.add_argument("--batch", nargs="+", type=positive, metavar="B")
        command.add_argument("--input", nargs="+", type=input_size, metavar="same|I", help="same: I = H")
        if name != "step":
            command.add_argument("--seq", nargs="+", type=positive, metavar="T")
        command.add_argument("--threads", nargs="+", type=positive, metavar="N", help="default: 1 and all")
        command.add_argument("--peers", nargs="*", choices=cases.PEERS, help="default: all; numpy not beside models")
        if name != "train":
            command.add_argument(
                "--precision", nargs="+", choices=cases.PRECISIONS, default=[cases.FLOAT32], help="besides float32"
            )
        if name == "infer":
            command.add_argument("--only", nargs="+", choices=models.NAMES, metavar="NAME", help="of a grid of models")
        command.add_argument("--rounds", type=positive, default=5 if name == "step" else 3)
        command.add_argument("--sample", type=seconds, default=0.1, metavar="S", help="seconds a sample")
        command.add_argument("--retries", type=not_negative, default=1, metavar="N", help="more samples while others are busy")
        command.add_argument("--json", type=Path, metavar="FILE", help="default: bench/results/")
        command.add_argument("--plot", type=Path, metavar="FILE.png")
    command = commands.add_parser("limits", help="FMA peak, SGEMM, reading rate")
    command.add_argument("--threads", nargs="+", type=positive, metavar="N", help="default: 1 and all")
    command.add_argument("--json", type=Path, default=RESULTS / "limits.json", metavar="FILE")
    command = commands.add_parser("cold", help="import and first calls, in fresh processes")
    command.add_argument("--cells", nargs="+", choices=cases.CELLS, default=list(cases.CELLS))
    command.add_argument("--rounds", type=positive, default=3)
    command.add_argument("--json", type=Path, default=RESULTS / "cold.json", metavar="FILE")
    command = commands.add_parser("beside", help="calls beside busy processes and other libraries' threads")
    command.add_argument("--scenes", nargs="+", choices=beside.SCENES, default=list(beside.SCENES))
    command.add_argument("--seconds", type=seconds, default=10.0, metavar="S", help="of each scene")
    command.add_argument("--json", type=Path, default=RESULTS / "beside.json", metavar="FILE")
    command = commands.add_parser("soak", help="random actions of many threads: nothing wrong, nothing left behind")
    command.add_argument("--seconds", type=seconds, metavar="S", help="default: 600; none with --fuzz alone")
    command.add_argument("--fuzz", type=positive, metavar="N", help="random calls between guard pages, first")
    command.add_argument("--threads", type=positive, default=12, metavar="N")
    command.add_argument("--seed", type=not_negative, default=0)
    command = commands.add_parser("plot", help="draw the figure from a file of `infer`")
    command.add_argument("json", type=Path)
    command.add_argument("plot", type=Path)
    command = commands.add_parser("table", help="the tables of reduced precisions, in Markdown, from a file of `infer`")
    command.add_argument("json", type=Path)
    command.add_argument("markdown", type=Path, nargs="?", help="default: printed")
    command = commands.add_parser("cuda", help="the CUDA backend against PyTorch, where a GPU is there")
    command.add_argument("--grid", choices=("quick", "full"), default="quick")
    command.add_argument("--all", action="store_true", help="the tests that need a GPU, then the full grid: under 8 minutes")
    command.add_argument("--predict", action="store_true", help="print the time model's predictions for named GPUs instead")
    command.add_argument("--sample", type=seconds, default=0.1, metavar="S", help="seconds a sample")
    command.add_argument("--out", type=Path, default=RESULTS / "cuda", metavar="DIR", help="JSON, table, figure")
    command = commands.add_parser("cuda-static", help="what the compiler makes of every CUDA kernel, for seven GPUs")
    command.add_argument("--json", type=Path, default=RESULTS / "cuda-static.json", metavar="FILE")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 1 when an implementation failed or answered wrongly."""
    arguments = parser().parse_args(argv)
    console = Console(width=max(TABLE_WIDTH, Console().width))
    try:
        if arguments.bench in BENCHES:
            return run_comparison(arguments, console)
        if arguments.bench == "limits":
            return run_limits(arguments.threads or default_threads(), arguments.json, console)
        if arguments.bench == "cold":
            return cold.run(arguments.cells, arguments.rounds, arguments.json, console)
        if arguments.bench == "beside":
            return beside.run(arguments.scenes, arguments.seconds, arguments.json, console)
        if arguments.bench == "soak":
            from bench.soak import command as soak

            work = {"fuzz": arguments.fuzz, "act": arguments.seconds or (0 if arguments.fuzz else 600)}
            return max(soak.run(name, n, arguments.threads, arguments.seed, console) for name, n in work.items() if n)
        if arguments.bench == "plot":
            draw(arguments.json, arguments.plot)
            return 0
        if arguments.bench == "table":
            return write_table(arguments.json, arguments.markdown)
        if arguments.bench == "cuda-static":
            from bench.cuda import static

            return static.run(console, arguments.json)
        if arguments.predict:
            predictions.show(console)
            return 0
        return cuda.run(console, arguments.grid, arguments.sample, arguments.all, arguments.out)
    except BenchError as error:
        console.print(f"[red]error: {error}[/red]")
        return 1


if __name__ == "__main__":
    sys.exit(main())
