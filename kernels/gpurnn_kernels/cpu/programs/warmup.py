"""`warmup` compiles kernels, or loads them from the cache, ahead of their first use."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from ..cells import CELLS
from ..codegen.compile import kernel_address
from .call import call, entry_of, step
from .kernels import kernels_of

ELEMENTS = ("float32", "float64")


def warmup(
    report: Callable[[int, int, str], None] = lambda done, of, name: None,
    cells: Sequence[str] = tuple(CELLS),
    elements: Sequence[str] = ELEMENTS,
    jobs: int = 1,
    precisions: Sequence[str] = (),
) -> None:
    """Makes the kernels of these cells and elements ready; calls report(done, of, name) before each and at the end.

    precisions: of layers, beside that of their elements: "bf16", "int8".
    jobs: processes that compile at the same time, for the cache on disk: the calling process has then loaded nothing.
    """
    if precisions:  # of float32 layers
        elements = tuple(dict.fromkeys((*elements, "float32")))
    tasks = _tasks(cells, elements, precisions)
    count = len(tasks)
    if jobs == 1:
        for done, (make, *what) in enumerate(tasks):
            report(done, count, _name(what))
            make(*what)
    else:
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            given: dict[Future[None], str] = {
                pool.submit(_make, cells, elements, precisions, index): _name(what) for index, (_, *what) in enumerate(tasks)
            }
            try:
                for done, future in enumerate(as_completed(given)):
                    report(done, count, given[future])
                    future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    report(count, count, "")


def _tasks(cells: Sequence[str], elements: Sequence[str], precisions: Sequence[str]) -> list[tuple[Any, ...]]:
    """Lists what is to be made: a function that makes it, and its arguments."""
    entries = [(entry_of, function, element) for element in elements for function in (call, step)]
    return [(kernel_address, kernel, element) for kernel, element in kernels_of(cells, elements, precisions)] + entries


def _make(cells: Sequence[str], elements: Sequence[str], precisions: Sequence[str], index: int) -> None:
    """Makes one of the tasks, in a process of a pool."""
    make, *what = _tasks(cells, elements, precisions)[index]
    make(*what)


def _name(what: Sequence[Any]) -> str:
    function, element = what
    return f"{function.__qualname__} {element}"
