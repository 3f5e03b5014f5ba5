"""Progress bars, on standard error, where that is a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[int, int, str], None]


@contextmanager
def progress(title: str, patience: float = 0.0) -> Iterator[Update]:
    """Gives a function `update(done, of, note)` to call as the work goes on; the bar shows up after `patience` seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(title, total=None, note="")
    begin = time.monotonic()

    def update(done: int, of: int, note: str = "") -> None:
        bar.update(task, completed=done, total=of, note=note)
        if not bar.live.is_started and time.monotonic() - begin >= patience:
            bar.start()

    try:
        yield update
    finally:
        bar.stop()
