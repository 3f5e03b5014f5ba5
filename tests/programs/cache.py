"""Programs that tests of machine code on disk and of first calls run in processes of their own."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import numpy as np

RECORDS: list[str] = []


class _Records(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        RECORDS.append(f"{record.levelname} {record.getMessage()}")


logging.getLogger("gpurnn").addHandler(_Records())
logging.getLogger("gpurnn").setLevel(logging.DEBUG)


def a_step(cells: Any) -> Any:
    """The kernel `gru_after_step`."""
    return next(cells["gru_after"].all_steps()).step[0]


def _tell(**more: Any) -> None:
    """Prints how kernels were come by."""
    import gpurnn_kernels
    from gpurnn_kernels.cpu.codegen.cache import cache_folder

    folder = cache_folder()
    told = {"records": RECORDS, "kernels": gpurnn_kernels.__file__, "folder": None if folder is None else str(folder)}
    print(json.dumps(told | more))


def cached() -> None:
    """A small layer's result, and how its kernels were come by."""
    _tell(y=first_call().tolist())


def kernel(change: str = "", when: str = "") -> None:
    """Compiles or loads one kernel, and tells how; with a file that changes before the kernel is asked for, or is compiled."""
    import gpurnn_kernels  # noqa: F401 - takes its digest

    def changed() -> None:
        with open(change, "a", encoding="utf-8") as file:
            file.write("\n# another version\n")

    if when == "before":
        changed()
    from gpurnn_kernels.cpu.cells import CELLS
    from gpurnn_kernels.cpu.codegen import cache
    from gpurnn_kernels.cpu.codegen.compile import kernel_address

    if when == "during":
        cache._announce = changed
    assert kernel_address(a_step(CELLS), "float32")
    _tell()


def digest() -> None:
    from gpurnn_kernels.digest import AT_START, digest

    assert digest() == AT_START
    print(json.dumps(AT_START))


def folders() -> None:
    from gpurnn_kernels.cpu.codegen.cache_folders import candidates

    print(json.dumps([str(folder) for folder in candidates()]))


def obey_permissions() -> None:
    """Root, too, writes only where permissions let it."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << 1)  # CAP_DAC_OVERRIDE of the effective ones
    assert libc.capset(header, sets) == 0


def hold(folder: str) -> None:
    """Holds the lock of a kernel until the process ends."""
    from gpurnn_kernels.cpu.codegen.cache_files import alone

    with alone(Path(folder), "kernel"):
        print("held", flush=True)
        time.sleep(600)


class Frozen:
    """Imports a package from code alone, as a frozen program does."""

    def __init__(self, root: str, package: str) -> None:
        self._code: dict[str, tuple[CodeType, bool]] = {}
        for path in Path(root, package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            self._code[name] = compile(path.read_text(encoding="utf-8"), f"{name}.py", "exec"), is_package

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in self._code:
            return None
        spec = ModuleSpec(name, self, origin=f"/frozen/{name}", is_package=self._code[name][1])  # type: ignore[arg-type]
        if self._code[name][1]:
            spec.submodule_search_locations = [f"/frozen/{name}"]
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> None: ...

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code[module.__name__][0], vars(module))

    def get_code(self, name: str) -> CodeType:
        return self._code[name][0]

    def iter_modules(self, prefix: str) -> list[tuple[str, bool]]:
        """Answers what `pkgutil.iter_modules` asks of the finder of a folder; set on those that list."""
        depth = prefix.count(".")
        return [
            (name, is_package)
            for name, (_, is_package) in self._code.items()
            if name.startswith(prefix) and name.count(".") == depth
        ]


def frozen(root: str, lists: str, then: str) -> None:
    """Runs another program with the kernels frozen, by an importer that lists its modules or does not."""
    importer = Frozen(root, "gpurnn_kernels")
    sys.meta_path.insert(0, importer)  # type: ignore[arg-type]
    if lists == "lists":

        class Folder:
            def __init__(self, path: str) -> None:
                if not path.startswith("/frozen/"):
                    raise ImportError(path)

            def iter_modules(self, prefix: str) -> list[tuple[str, bool]]:
                return importer.iter_modules(prefix)

            def find_spec(self, name: str, target: object = None) -> ModuleSpec | None:
                return importer.find_spec(name)

        sys.path_hooks.insert(0, Folder)  # type: ignore[arg-type]
    globals()[then]()


def first_call() -> Any:
    """The first use of Numba and of kernels in this process."""
    import gpurnn

    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 2, 3)
    return gpurnn.GRU(3, 5, reset_after=True, seed=0)(x)[0]


def _in_a_child(task: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            task()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def interrupted(trials: int = 10) -> None:
    """First calls that a time limit breaks off, sooner or later: the next one works, in a forked child, too."""
    import gpurnn  # noqa: F401 - Numba is not imported yet

    def limit(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, limit)
    begin = time.monotonic()
    _in_a_child(first_call)
    whole = time.monotonic() - begin

    def trial(delay: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, delay)
        try:
            first_call()
        except TimeoutError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if delay < whole / 2:
            _in_a_child(first_call)
        first_call()

    for k in range(trials):
        _in_a_child(lambda delay=whole * (k + 0.5) / trials: trial(delay))  # type: ignore[misc]


def deep() -> None:
    """First calls from near the limit of recursion: whatever comes of them, the next one works."""
    import gpurnn  # noqa: F401

    def at(depth: int) -> Any:
        return at(depth - 1) if depth else first_call()

    def trial(left: int) -> None:
        with suppress(RecursionError):
            at(sys.getrecursionlimit() - left)
        first_call()

    for left in (40, 70, 130):
        _in_a_child(lambda left=left: trial(left))  # type: ignore[misc]


def ctrl_c() -> None:
    """Ctrl-C while LLVM calls back: KeyboardInterrupt comes out, and the kernel is there the next time."""
    from numba.core.codegen import JITCodeLibrary

    original = JITCodeLibrary._object_compiled_hook.__func__  # type: ignore[attr-defined]
    signals = [signal.SIGINT]  # still to be sent
    armed = False

    def hook(cls: Any, module: Any, data: Any) -> None:
        if armed and signals:
            os.kill(os.getpid(), signals.pop())
            sum(range(1000))
        original(cls, module, data)

    JITCodeLibrary._object_compiled_hook = classmethod(hook)
    from gpurnn_kernels.cpu.cells import CELLS
    from gpurnn_kernels.cpu.codegen.compile import kernel_address

    armed = True
    try:
        kernel_address(a_step(CELLS), "float32")
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    assert not signals
    assert kernel_address(a_step(CELLS), "float32")


def little_address_space() -> None:
    import resource

    from gpurnn_kernels.cpu.cells import CELLS
    from gpurnn_kernels.cpu.codegen.compile import kernel_address

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 20), resource.RLIM_INFINITY))
    try:
        kernel_address(a_step(CELLS), "float32")
    except MemoryError as error:
        print(error)
