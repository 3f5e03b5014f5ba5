"""The report that the demo prints."""

import statistics
import time
from importlib.util import find_spec

import numpy as np
from rich.console import Console
from rich.table import Table

from .data import SPEAKERS, Utterances
from .model import Classifier

CALLS = 20  # that are timed


def line(console: Console, text: str) -> None:
    """Prints a text as it is: unwrapped, uncoloured."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def need_matplotlib() -> None:
    """Raises ModuleNotFoundError, which names the extra, where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("--plot needs matplotlib: pip install 'gpurnn[plot]'")


def report(console: Console, classifier: Classifier, test: Utterances) -> None:
    """Runs all utterances as one ragged batch and prints how well and how fast they were told apart, and by which kernels."""
    begin = time.perf_counter()
    with Console(stderr=True).status("first call: kernels are compiled, or loaded where they were kept"):
        found = classifier.speakers(test)
    first = time.perf_counter() - begin
    seconds = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        classifier.speakers(test)
        seconds.append(time.perf_counter() - begin)
    took = statistics.median(seconds)
    right = found == test.speakers

    console.print(_table(right, test))
    line(console, f"one batch of {len(test)} utterances, {test.x.shape[0]} steps at most, {test.steps} in all")
    line(console, f"first call {first:.2f} s, then {1e3 * took:.2f} ms (median of {CALLS})")
    line(console, f"{len(test) / took:,.0f} utterances/s, {test.steps / took:,.0f} steps/s")
    line(console, str(classifier.layer.plan(test.x)))
    line(console, f"accuracy {100 * right.mean():.1f} % ({right.sum()} of {len(test)})")


def _table(right: "np.ndarray[tuple[int], np.dtype[np.bool]]", test: Utterances) -> Table:
    table = Table(title="Japanese Vowels: who is speaking?")
    for heading in "speaker", "utterances", "recognised", "accuracy":
        table.add_column(heading, justify="right")
    for speaker in range(SPEAKERS):
        mine = right[test.speakers == speaker]
        table.add_row(str(speaker + 1), str(mine.size), str(mine.sum()), f"{100 * mine.mean():.1f} %")
    table.add_section()
    table.add_row("all", str(right.size), str(right.sum()), f"{100 * right.mean():.1f} %")
    return table
