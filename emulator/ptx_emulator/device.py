"""`EmulatedDevice`: the seam's `Device` over NumPy and the PTX interpreter."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import numpy as np

from gpurnn_kernels.cuda.host.device import Kernel, Limits, check_grid
from gpurnn_kernels.cuda.host.launches import flattened

from .compile import compiled
from .instructions.conversions import as_tf32
from .layout import Shape
from .memory import EmulatedArray, GlobalMemory
from .occupancy import resident_blocks
from .program import Program
from .resources import resources
from .scheduler import Launch
from .table import DEVICES

_CURRENT: ContextVar["EmulatedDevice | None"] = ContextVar("_CURRENT", default=None)


@cache
def program(kernel: Kernel, cc: tuple[int, int]) -> Program:
    return Program(compiled(kernel, cc).ptx)


class EmulatedDevice:
    """name: of a card in `table.DEVICES`.

    noise: approximate instructions err within their documented bounds. detailed: sectors and bank conflicts are counted.
    strict: a launch with warnings raises AssertionError; else they are collected in `warnings`.
    """

    def __init__(
        self, name: str = "H100 SXM", *, noise: bool = True, strict: bool = True, detailed: bool = False, seed: int = 0
    ) -> None:
        self.limits: Limits = DEVICES[name]
        self.noise, self.strict, self.detailed = noise, strict, detailed
        self.memory = GlobalMemory()
        self.random = np.random.default_rng(seed)
        self.reset()
        self._captured: list[Callable[[], None]] | None = None  # while launches are recorded instead of made

    def reset(self) -> None:
        """Forgets what was counted."""
        self.launches: Counter[str] = Counter()  # by kernel; products count as "multiply"
        self.bytes: Counter[tuple[str, str]] = Counter()  # (kernel, "load" or "store"), of global memory
        self.warnings: Counter[str] = Counter()
        self.last: Launch | None = None

    def empty(self, shape: Sequence[int], dtype: Any) -> EmulatedArray:
        self._not_while_capturing("an allocation")
        return self.memory.allocate(tuple(shape), dtype, self, initialised=False)

    def zeros(self, shape: Sequence[int], dtype: Any) -> EmulatedArray:
        return self.upload(np.zeros(tuple(shape), dtype))

    def upload(self, array: Any) -> EmulatedArray:
        self._not_while_capturing("an allocation")
        array = np.asarray(array)
        result = self.memory.allocate(array.shape, array.dtype, self, initialised=True)
        result.view(np.ndarray)[...] = array
        return result

    def publish(self, *arrays: Any) -> list[EmulatedArray]:
        return [self.upload(array) for array in arrays]

    def address(self, array: EmulatedArray) -> int:
        return self.memory.address(array)

    def current(self) -> AbstractContextManager[None]:
        return self._current()

    @contextmanager
    def _current(self) -> Iterator[None]:
        before = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(before)

    def require_current(self, what: str) -> None:
        """Raises RuntimeError while another device is the current one: CUDA would work there. Outside of all, anything goes:
        tests prepare arrays."""
        if _CURRENT.get() not in (None, self):
            raise RuntimeError(f"{what} of a device while another is the current one")

    def multiply(
        self,
        a: Any,
        b: Any,
        out: Any,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
        tf32: bool = False,
    ) -> None:
        self.require_current("a product")
        self._not_while_capturing("a product")
        for array in (a, b, out):
            if array.ndim != 2 or (array.shape[1] > 1 and array.strides[1] != array.itemsize):
                raise ValueError(
                    f"a matrix of units side by side expected, received {array.shape} with strides {array.strides}"
                )
            self.memory.address(array)
        self._require_initialised(a, b, *([out] if accumulate else []))
        left, right = (m.view(np.ndarray).T if t else m.view(np.ndarray) for m, t in ((a, transpose_a), (b, transpose_b)))
        compute = np.float64 if out.dtype == np.float64 else np.float32
        if tf32:
            left, right = as_tf32(left, nearest_even=True), as_tf32(right, nearest_even=True)
        product = left.astype(compute) @ right.astype(compute)
        out[...] = product + out.view(np.ndarray) if accumulate else product
        self.launches["multiply"] += 1

    def _require_initialised(self, *arrays: Any) -> None:
        for array in arrays:
            if array.size and not self.memory.flags_of(array).all():
                self._warn(f"multiply reads an array {array.shape} that is not initialised")

    def _warn(self, text: str) -> None:
        if self.strict:
            raise AssertionError(text)
        self.warnings[text] += 1

    def launcher(self, kernel: Kernel, grid: Sequence[int], *first: Any, shared: int = 0) -> Callable[..., None]:
        check_grid(kernel, grid)
        shape: Shape = (*grid, 1, 1)[:3]  # type: ignore[assignment]
        limits = self.limits
        if kernel.cooperative:
            held = self.resident_blocks(kernel, shared) * limits.multiprocessors
            if int(np.prod(shape)) > held:
                raise RuntimeError(
                    f"{kernel.name}: a grid of {tuple(grid)} blocks that wait for each other, {limits.name} holds {held}"
                )
        made = program(kernel, limits.compute_capability)
        needed = made.static_shared + shared
        if needed > limits.shared_per_block:
            raise RuntimeError(
                f"{kernel.name}: {needed} bytes of shared memory a block, {limits.name} has {limits.shared_per_block}"
            )
        values, names = flattened(kernel, first)
        types = [np.dtype(name) for name in names]
        start = self._values(values, types)

        def launch(*rest: int | float) -> None:
            self.require_current("a launch")
            arguments = start + self._values(rest, types[len(values) :])
            run = partial(self._launch, kernel, made, shape, shared, arguments, first)
            if self._captured is None:
                run()
            else:
                self._captured.append(run)

        return launch

    def _launch(self, kernel: Kernel, made: Program, shape: Shape, shared: int, arguments: list[Any], alive: Any) -> None:
        """alive: arrays that must live until then."""
        block: Shape = (kernel.threads, 1, 1)
        run = Launch(made, shape, block, shared, self.memory, self.random, noise=self.noise, detailed=self.detailed)
        run.run(arguments)
        self._count(kernel, run)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records launches like a CUDA graph: nothing runs until the result is called."""
        self.require_current("a capture")
        self._captured = []
        try:
            work()
            recorded = self._captured
        finally:
            self._captured = None

        def replay() -> None:
            self.require_current("a graph")
            for run in recorded:
                run()

        replay.work = work  # type: ignore[attr-defined]  # its arrays live as long
        return replay

    def _not_while_capturing(self, what: str) -> None:
        if self._captured is not None:
            raise RuntimeError(f"{what} while a graph is being captured")

    def _values(self, given: Sequence[Any], types: Sequence[Any]) -> list[Any]:
        values = []
        for value, dtype in zip(given, types, strict=False):
            if isinstance(value, EmulatedArray):
                value = self.address(value)
            elif isinstance(value, np.ndarray):
                raise TypeError("a NumPy array given to a kernel: arrays must be on the device")
            values.append(np.array([value], dtype))
        return values

    def _count(self, kernel: Kernel, run: Launch) -> None:
        self.launches[kernel.name] += 1
        for kind in ("load", "store"):
            self.bytes[kernel.name, kind] += run.counters.bytes["global", kind]
        self.last = run
        self.warnings += run.warnings
        if self.strict and run.warnings:
            listed = "\n".join(f"{n} x {text}" for text, n in run.warnings.items())
            raise AssertionError(f"{kernel.name}:\n{listed}")

    def resident_blocks(self, kernel: Kernel, shared: int) -> int:
        used = resources(kernel, self.limits.compute_capability)
        return resident_blocks(self.limits, kernel.threads, used.registers, used.shared + shared)
