"""`python -m bench soak`: threads act at random on layers that they share and on layers of their own, while exceptions
interrupt them, allocations fail and children are forked. Each result must have the bits that it had beforehand, and at the end
nothing may be left. A process of its own does it and notes what each thread is about, which a crash leaves behind."""

from __future__ import annotations

import copy
import ctypes
import faulthandler
import gc
import mmap
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import gpurnn
from bench.soak.guarded import Guards
from bench.soak.problems import ORDINARY, Problem, difference

LAYERS, LONGEST = 8, 200  # few, and calls of some length, so that threads meet in them
LIMIT_S = 300  # in which a forked child returns, half of what all threads have to end
GROWTH = 256  # MiB from a third of the time on: what calls leave for the next ones is bounded
NOTE = 400  # bytes of what a thread is about
_plain = {name: getattr(np, name) for name in ("empty", "zeros")}


class Wrong(Exception):
    """An error that must not be."""


class Interrupt(KeyboardInterrupt):
    """An exception that interrupts actions, as Ctrl-C and time limits do."""


def note(folder: Path, index: int, text: str) -> None:
    """Writes down what a thread is about, in a file that outlives the process."""
    with open(folder / "notes", "r+b") as file:
        file.seek(NOTE * index)
        file.write(text.encode()[: NOTE - 1].ljust(NOTE - 1) + b"\n")


class Subject:
    """A problem, the layer of it that all threads share, two sets of parameters and what they give."""

    def __init__(self, seed: int) -> None:
        self.problem = Problem(seed, LONGEST)
        self.layer = self.problem.layer(0)
        self.params = [self.problem.layer(k).params for k in (0, 1)]
        self.expected: list[dict[str, Any]] = []
        for params in self.params:
            self.layer.load_params(params)
            self.expected.append({kind: self.problem.run(kind, self.layer, ORDINARY) for kind in self.problem.kinds})


class Actor(threading.Thread):
    """A thread that acts until `over` is set."""

    def __init__(self, index: int, seed: int, subjects: list[Subject], folder: Path, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.over, self.text, self.error, self.counts = over, "", "", Counter[str]()
        self.armed: list[int] = []  # whoever takes the item interrupts, or ends the time in which this thread may be
        self.succeed = -1  # allocations before one that fails; -1: all
        self._index, self._subjects, self._folder = index, subjects, folder
        self._random = random.Random(f"{seed} {index}")
        self._own = [subject.problem.layer(index % 2) for subject in subjects]

    def run(self) -> None:
        try:
            while not self.over.is_set():
                way, action = self._random.choice(_WAYS), self._random.choice(_ACTIONS)
                if way is Actor.interrupted and action is Actor.saved:
                    continue  # an exception at any bytecode may leave a file
                index = self._random.randrange(len(self._subjects))
                self.text = f"{way.__name__} {action.__name__}: {self._subjects[index].problem}"
                note(self._folder, self._index, self.text)
                with gpurnn.threads(self._random.randint(1, 3)):
                    way(self, lambda action=action, index=index: action(self, index))  # type: ignore[misc]
                self.counts[way.__name__] += 1
        except BaseException as error:
            self.error = f"{self.text}: {error if isinstance(error, Wrong) else traceback.format_exc()}"
            self.over.set()

    def _check(self, index: int, layer: Any, sets: tuple[int, ...] = (0, 1), arrays: Any = ORDINARY) -> None:
        """Raises Wrong unless the layer gives what one of these sets of parameters gives."""
        subject = self._subjects[index]
        kind = self._random.choice(subject.problem.kinds)
        found = subject.problem.run(kind, layer, arrays)
        wrong = [difference(found, subject.expected[k][kind]) for k in sets]
        if all(wrong):
            raise Wrong(f"{kind}: {wrong[0]}")

    def shared(self, index: int) -> None:
        self._check(index, self._subjects[index].layer)

    def own(self, index: int) -> None:
        self._check(index, self._own[index], (self._index % 2,))

    def guarded(self, index: int) -> None:
        guards = Guards(np.random.default_rng(self._random.randrange(1 << 32)))
        self._check(index, self._subjects[index].layer, arrays=guards)
        if wrong := guards.difference():
            raise Wrong(wrong)

    def loaded(self, index: int) -> None:
        self._subjects[index].layer.load_params(self._random.choice(self._subjects[index].params))

    def copied(self, index: int) -> None:
        ways: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
        self._check(index, self._random.choice(ways)(self._subjects[index].layer))

    def saved(self, index: int) -> None:
        path = self._folder / f"{self._index}.safetensors"
        self._subjects[index].layer.save(path)
        self._check(index, gpurnn.load(path))

    def plain(self, action: Callable[[], None]) -> None:
        action()

    def short_of_memory(self, action: Callable[[], None]) -> None:
        self.succeed = self._random.randrange(12)
        try:
            action()
        except MemoryError:
            pass
        finally:
            self.succeed = -1

    def interrupted(self, action: Callable[[], None]) -> None:
        try:
            self.armed.append(1)
            action()
            end = time.monotonic() + 10  # Python ignores what interrupts a finalizer
            while not taken(self.armed) and time.monotonic() < end:
                time.sleep(1e-3)
        except Interrupt:
            pass

    def forked(self, action: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            try:
                action()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        if status := os.waitpid(pid, 0)[1]:
            raise Wrong(f"a forked child ended with {os.waitstatus_to_exitcode(status)}")


_ACTIONS = [*4 * [Actor.shared], *4 * [Actor.own], Actor.guarded, Actor.loaded, Actor.copied, Actor.saved]
_WAYS = [*5 * [Actor.plain], *2 * [Actor.short_of_memory], *2 * [Actor.interrupted]]
if sys.platform == "linux":
    _WAYS.append(Actor.forked)


def taken(armed: list[int]) -> bool:
    """Takes the item: whether it was there."""
    try:
        armed.pop()
    except IndexError:
        return False
    return True


def allocate(name: str, *arguments: Any, **options: Any) -> Any:
    """np.empty or np.zeros, which fail where the calling actor wants it."""
    actor = threading.current_thread()
    if isinstance(actor, Actor) and actor.succeed >= 0:
        actor.succeed -= 1
        if actor.succeed < 0:
            raise MemoryError("made to fail")
    return _plain[name](*arguments, **options)


def left(folder: Path) -> dict[str, Any]:
    """Gives what must be the same before and after."""
    gc.collect()
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects() if str(type(thing).__module__).startswith("gpurnn"))
    ours = ("LSTM", "GRU", "Prepared", "Stream", "VJP", "PlainCall", "Weights", "ForwardProgram", "BackwardProgram")
    found: dict[str, Any] = {name: kinds[name] for name in ours if kinds[name]}
    found |= {"threads": threading.active_count(), "files": len(list(folder.glob("*.tmp")))}
    if sys.platform == "linux":
        found["descriptors"] = len(os.listdir("/proc/self/fd"))
    return found


def resident() -> int:
    """MiB of memory that this process has, where Linux tells."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * mmap.PAGESIZE >> 20 if statm.exists() else 0


def act(seconds: float, threads: int, seed: int, folder: Path) -> str:
    """-> what was done, in a line; raises Wrong."""
    over, ignored, rng = threading.Event(), list[str](), random.Random(seed)
    sys.unraisablehook = lambda what: None if what.exc_type is Interrupt else ignored.append(repr(what))
    subjects = [Subject(1000 * seed + k) for k in range(LAYERS)]
    actors = [Actor(index, seed, subjects, folder, over) for index in range(threads)]
    for name in _plain:
        setattr(np, name, partial(allocate, name))
    for actor in actors:
        actor.start()
    begin, sizes = time.monotonic(), list[int]()
    while time.monotonic() < begin + seconds and not over.is_set():
        if not sizes and time.monotonic() > begin + seconds / 3:
            sizes.append(resident())
        time.sleep(rng.uniform(1e-4, 1e-2))
        actor = rng.choice(actors)
        if taken(actor.armed):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(actor.ident or 0), ctypes.py_object(Interrupt))
    sizes.append(resident())
    over.set()
    end = time.monotonic() + 2 * LIMIT_S
    for actor in actors:
        actor.join(max(0.0, end - time.monotonic()))
    if hanging := [actor.text for actor in actors if actor.is_alive()]:
        faulthandler.dump_traceback()
        raise Wrong(f"hangs: {hanging[0]}")
    if wrong := [actor.error for actor in actors if actor.error] + ignored:
        raise Wrong(wrong[0])
    if sizes[-1] - sizes[0] > GROWTH:
        raise Wrong(f"memory grew from {sizes[0]} to {sizes[-1]} MiB")
    counts = sum((actor.counts for actor in actors), Counter[str]())
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) + f"; {sizes[-1]} MiB"


def fuzz(count: int, seed: int, folder: Path) -> str:
    """Random calls, on arrays between guard pages, must give the bits that they give on ordinary ones, and write nowhere else.
    -> what was done, in a line; raises Wrong."""
    for number in range(seed, seed + count):
        problem, guards = Problem(number), Guards(np.random.default_rng(number))
        note(folder, 0, f"fuzz, seed {number}: {problem}")
        with gpurnn.threads(problem.threads), guards.allocations():
            layer = problem.layer()
        for kind in problem.kinds:
            expected = problem.run(kind, problem.layer(), ORDINARY)
            with gpurnn.threads(problem.threads), guards.allocations():
                found = problem.run(kind, layer, guards)
            if wrong := guards.difference() or difference(found, expected):
                raise Wrong(f"{kind}, seed {number}: {problem}: {wrong}")
    return f"{count} layers between guard pages"


def run(work: str, amount: float, threads: int, seed: int, console: Console) -> int:
    """Fuzzes (`amount` layers) or acts (for `amount` seconds). Exit status: 1 with a line that has the seed and the
    configuration, when something is wrong or left behind."""
    with tempfile.TemporaryDirectory() as name:
        notes = Path(name) / "notes"
        notes.touch()
        program = [sys.executable, "-X", "faulthandler", "-m", "bench.soak.command"]
        command = [*program, work, str(amount), str(threads), str(seed), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        threads_at = "\n".join(line.rstrip() for line in notes.read_text().splitlines())
    verdict = f"failed: status {done.returncode}" if done.returncode else "nothing wrong, nothing left"
    text = f"{work} {amount:g}, {threads} threads, seed {seed}: {verdict}: {done.stdout.strip() or threads_at}"
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return bool(done.returncode)


def main(work: str, amount: float, threads: int, seed: int, folder: Path) -> int:
    """The child's part."""
    from gpurnn_kernels.cpu.threads import partition as schedule

    schedule._LEAST_CALL = 0.0  # small calls run on several threads, too
    before = left(folder)
    try:
        told = fuzz(int(amount), seed, folder) if work == "fuzz" else act(amount, threads, seed, folder)
        if (after := left(folder)) != before:
            raise Wrong(f"left: {after}, before: {before}")
    except Wrong as error:
        print(error, flush=True)
        return 1
    print(told, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])))
