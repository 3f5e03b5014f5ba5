"""Problems for layers, what the reference says of them, and how near a layer must come. Letters as in reference.py."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import reference
from reference import State, packed, parts
from reference_cells import CELLS

import gpurnn
from gpurnn.cli import gpu

Floats = npt.NDArray[Any]
TESTS = Path(__file__).parent
OUTPUTS = {"float32": 2e-6, "float64": 1e-12}  # times max(1, largest)
GRADIENTS = {"float32": 1e-4, "float64": 1e-11}  # of norms, see assert_gradients_near
LAYERS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reverse": {"reverse": True},
    "both": {"bidirectional": True},
    "stacked": {"num_layers": 2},
    "stacked-reverse": {"num_layers": 2, "reverse": True},
    "stacked-both": {"num_layers": 3, "bidirectional": True},
    "no-bias": {"bias": False},
    "batch-first": {"batch_first": True},
    "batch-first-both": {"batch_first": True, "bidirectional": True},
}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # a cell and its options
    **{cell: (cell, {}) for cell in CELLS},
    "peepholes": ("lstm", {"peepholes": True}),
    "clip": ("lstm", {"clip": 0.4}),
    "input_forget": ("lstm", {"input_forget": True}),
    "proj_size": ("lstm", {"proj_size": 3}),
    "no projection": ("lstm", {"peepholes": True, "clip": 0.4, "input_forget": True}),
    "all": ("lstm", {"proj_size": 5, "peepholes": True, "clip": 0.4, "input_forget": True}),
    "gru clip": ("gru", {"clip": 0.4}),
    "gru_after clip": ("gru_after", {"clip": 0.4}),
}


class Backend(NamedTuple):
    """Where a layer's arrays live, and how they get there and back."""

    name: str
    array: Callable[[Floats], Any]
    numpy: Callable[[Any], Floats]
    missing: Callable[[], str | None] = lambda: None  # why nothing runs there
    devices: Callable[[], tuple[Any, ...]] = tuple  # `array` puts arrays on the first

    @property
    def device(self) -> Any:
        return self.devices()[0]


def emulated_device() -> Any:
    return emulated_devices()[0]


@cache
def emulated_devices() -> tuple[Any, ...]:
    from ptx_emulator.device import EmulatedDevice

    return EmulatedDevice(), EmulatedDevice("T4")


def gpus() -> tuple[Any, ...]:
    """The devices of this machine, the current one first."""
    import cupy

    from gpurnn_kernels.cuda.host.cupy_device import gpu as device_of_index

    first = cupy.cuda.Device().id
    count = cupy.cuda.runtime.getDeviceCount()
    return tuple(device_of_index((first + k) % count) for k in range(count))


def missing_compiler() -> str | None:
    from ptx_emulator import compile

    return compile.why_not()


BACKENDS = {
    "cpu": Backend("cpu", lambda a: a, lambda a: a),
    "cuda-emulated": Backend(
        "cuda-emulated", lambda a: emulated_device().upload(a), np.array, missing_compiler, emulated_devices
    ),
    "cuda": Backend("cuda", lambda a: cupy_array(a), lambda a: a.get(), gpu.missing, gpus),
}


class Launches(Counter[str]):
    """Launches on a device, by kernel; products count as "multiply"."""

    def __init__(self, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        launcher, multiply = device.launcher, device.multiply

        def counting_launcher(kernel: Any, *arguments: Any, **options: Any) -> Callable[..., None]:
            launch = launcher(kernel, *arguments, **options)

            def counting_launch(*rest: Any) -> None:
                self[kernel.name] += 1
                launch(*rest)

            return counting_launch

        def counting_multiply(*arguments: Any, **options: Any) -> None:
            self["multiply"] += 1
            multiply(*arguments, **options)

        monkeypatch.setattr(device, "launcher", counting_launcher)
        monkeypatch.setattr(device, "multiply", counting_multiply)

    def named(self, text: str) -> list[str]:
        """The names of kernels that contain this text."""
        return [name for name in self if text in name]


def not_emulated(backend: Backend) -> None:
    if backend.name == "cuda-emulated":
        pytest.skip("too large for the interpreter")


def device_of(array: Any) -> Any:
    """The device that an array lies on."""
    from gpurnn_kernels.cuda.host import devices

    return devices.device_of(array)


def cupy_array(a: Floats) -> Any:
    import cupy

    return cupy.asarray(a)


def new_layer(cell: str, I: int, H: int, num_layers: int = 1, **options: Any) -> Any:
    """cell: "lstm", "gru" or "gru_after", as in the reference."""
    if cell == "lstm":
        return gpurnn.LSTM(I, H, num_layers, **options)
    return gpurnn.GRU(I, H, num_layers, reset_after=cell == "gru_after", **options)


class Problem:
    """A layer's options, parameters and inputs, all (T, B, ...), with NaN in x and dy past the lengths; kind: of `KINDS`."""

    def __init__(
        self,
        kind: str,
        T: int = 5,
        B: int = 3,
        I: int = 4,
        H: int = 7,
        *,
        dtype: str = "float32",
        lengths: list[int] | None = None,
        bias: bool = True,
        batch_first: bool = False,
        fast_math: bool = False,
        precision: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.cell, given = KINDS[kind]
        options = {**given, **options}
        self.lengths, self.options, self.batch_first = lengths, options, batch_first
        self._made = {"dtype": dtype, "bias": bias, "batch_first": batch_first, **options}
        self._made |= {"fast_math": fast_math, "precision": precision}
        rng = np.random.default_rng(seed)
        D = 2 if options.get("bidirectional") else 1
        P = options.get("proj_size") or H
        rows = options.get("num_layers", 1) * D
        states = (P, H)[: CELLS[self.cell].states]
        self.sizes = (I, H)

        def draw(*shape: int) -> Floats:
            return rng.standard_normal(shape).astype(dtype)

        self.params = reference.random_params(self.cell, I, H, bias=bias, dtype=dtype, seed=seed, **options)
        self.x, self.dy = draw(T, B, I), draw(T, B, D * P)
        self.state: Any = packed([draw(rows, B, size) for size in states])
        self.dstate: Any = packed([draw(rows, B, size) for size in states])
        if lengths is not None:
            self.past = np.arange(T)[:, None] >= np.array(lengths)
            self.x[self.past] = np.nan
            self.dy[self.past] = np.nan

    @cached_property
    def layer(self) -> Any:
        layer = new_layer(self.cell, *self.sizes, **self._made)
        layer.load_params(self.params)
        return layer

    def laid_out(self, a: Floats) -> Floats:
        """(T, B, n) as the layer has it, or back."""
        return a.swapaxes(0, 1) if self.batch_first else a

    def run(self, backend: Backend = BACKENDS["cpu"]) -> tuple[Floats, State]:
        """The layer's y (T, B, D*H) and state."""
        state = packed([backend.array(s) for s in parts(self.state)])
        y, last = self.layer(backend.array(self.laid_out(self.x)), state, self.lengths)
        return self.laid_out(backend.numpy(y)), packed([backend.numpy(s) for s in parts(last)])

    def gradients(self, backend: Backend = BACKENDS["cpu"]) -> dict[str, Floats]:
        """The layer's: of x (T, B, I), h_0, c_0 and the parameters, by name."""
        state = packed([backend.array(s) for s in parts(self.state)])
        _, vjp = self.layer.vjp(backend.array(self.laid_out(self.x)), state, self.lengths)
        dstate = packed([backend.array(s) for s in parts(self.dstate)])
        grads = vjp(backend.array(self.laid_out(self.dy)), dstate)
        found = {name: backend.numpy(a) for name, a in named(grads).items()}
        return found | {"x": self.laid_out(found["x"])}

    def expected(self) -> tuple[Floats, State]:
        return reference.forward(self.cell, self.params, self.x, self.state, self.lengths, **self.options)

    def expected_gradients(self) -> dict[str, Floats]:
        dy = self.dy if self.lengths is None else np.where(self.past[..., None], 0, self.dy)
        given = (self.cell, self.params, self.x, dy, self.dstate, self.state, self.lengths)
        return named(reference.gradients(*given, **self.options))


def named(grads: Any) -> dict[str, Floats]:
    """All arrays of gradients."""
    states = dict(zip(("h_0", "c_0"), parts(grads.state), strict=False))
    return {"x": grads.x, **states, **grads.params}


def leaves(tree: Any) -> list[Floats]:
    """The arrays in nested tuples, such as what a layer gives."""
    return [a for part in tree for a in leaves(part)] if isinstance(tree, (tuple, list)) else [tree]


def assert_near(actual: Any, expected: Any, tolerance: float) -> None:
    """Each array of a tree against its own largest value."""
    for a, e in zip(leaves(actual), leaves(expected), strict=True):
        assert a.shape == e.shape
        largest = max(1.0, float(np.max(np.abs(e), initial=0)))
        error = np.max(np.abs(a - e), initial=0)  # NaN if any is
        assert error <= tolerance * largest, f"off by {error}"


def assert_gradients_near(actual: Mapping[str, Floats], expected: Mapping[str, Floats], tolerance: float) -> None:
    """Norms of the differences, each against the larger of its array's norm and 1 % of the largest array's."""
    assert list(actual) == list(expected)
    norms = {name: float(np.linalg.norm(e)) for name, e in expected.items()}
    for name, e in expected.items():
        assert actual[name].shape == e.shape, name
        error = float(np.linalg.norm(actual[name] - e))
        assert error <= tolerance * max(norms[name], 0.01 * max(norms.values())), f"{name} off by {error}"


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Arrays, tuples of arrays, mappings of arrays."""
    if isinstance(expected, Mapping):
        assert list(actual) == list(expected)
        for name in expected:
            assert_same_bits(actual[name], expected[name])
    elif isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e)
    else:
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        differ = np.ascontiguousarray(actual).view(np.uint8) != np.ascontiguousarray(expected).view(np.uint8)
        assert not differ.any(), f"{np.count_nonzero(differ)} of {differ.size} bytes differ"


def row_of(state: Any, rows: slice) -> Any:
    """Some rows of a state (L*D, B, H)."""
    return packed([s[:, rows] for s in parts(state)])


def python(code: str, *arguments: str, timeout: float = 240, **environment: str | None) -> str:
    """The output of a new interpreter, started beside the tests; None removes a variable."""
    return finished(started(code, *arguments, **environment), timeout)


def finished(process: subprocess.Popen[str], timeout: float) -> str:
    """The output of a process, once it has ended well."""
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        end(process)
        out, errors = process.communicate()
        raise AssertionError(f"no end after {timeout} s\n{out}\n{errors}") from None
    assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{errors}"
    return out


def end(process: subprocess.Popen[str]) -> None:
    """With its children, which would keep the pipes open."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def started(code: str, *arguments: str, **environment: str | None) -> subprocess.Popen[str]:
    merged = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    env = {name: value for name, value in merged.items() if value is not None}
    command = [sys.executable, "-c", code, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=TESTS, env=env, text=True, stdout=pipe, stderr=pipe, start_new_session=True)
