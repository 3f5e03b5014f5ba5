"""`CupyDevice` over a CUDA that only keeps account: the thread's device and context, streams that capture, what is allocated
where. Needs CuPy, and no GPU."""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptx_emulator.compile import why_not

for module in ("cupy", "numba_cuda", "cuda"):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed", allow_module_level=True)
if why := why_not():
    pytest.skip(why, allow_module_level=True)

from gpurnn_kernels.cuda.host import cupy_device  # noqa: E402

F32 = np.dtype("float32")


class Runtime(threading.local):
    """CUDA's runtime, as a thread sees it: it starts on device 0, without a context until it sets one."""

    CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), {})

    def __init__(self) -> None:
        self.device, self.context = 0, None

    def getDevice(self) -> int:
        return self.device

    def setDevice(self, index: int) -> None:
        self.device = self.context = index


class Cuda:
    """CuPy, as far as the device uses it: every allocation is an event, and gives the device that it was made on."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.events: list[str] = []
        self.capturing = 0
        self.invalid = False  # whether a capture that ends was spoilt
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: self._stream(), get_current_stream=self._stream, using_allocator=self._using_allocator
        )
        self.empty, self.zeros, self.array, self.asarray = (
            self._made(name) for name in ("empty", "zeros", "array", "asarray")
        )

    def _made(self, name: str) -> Callable[..., int]:
        def make(*_: Any, **__: Any) -> int:
            self.events.append(name)
            return self.runtime.device

        return make

    @contextmanager
    def _using_allocator(self, allocator: Any) -> Iterator[None]:
        self.events.append(f"allocator {allocator}")
        yield
        self.events.append("allocator of before")

    def _stream(self) -> Any:
        @contextmanager
        def current() -> Iterator[None]:
            yield

        stream = current()
        stream.begin_capture = self._begin  # type: ignore[attr-defined]
        stream.end_capture = self._end  # type: ignore[attr-defined]
        stream.synchronize = lambda: self.events.append("synchronize")  # type: ignore[attr-defined]
        return stream

    def _begin(self) -> None:
        self.capturing += 1

    def _end(self) -> Any:
        self.capturing -= 1
        if self.invalid:
            raise self.runtime.CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return SimpleNamespace(launch=lambda stream: self.events.append("graph"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    monkeypatch.setattr(cupy_device, "cupy", made)
    monkeypatch.setattr(cupy_device, "runtime", made.runtime)
    monkeypatch.setattr(cupy_device.CupyDevice, "_read_limits", lambda self: None)
    return made


def device_of_index(index: int) -> Any:
    device = object.__new__(cupy_device.CupyDevice)
    device.index = index
    return device


def test_allocations_are_made_on_the_device(fake: Cuda) -> None:
    """Whichever is the current one, which stays."""
    device, array = device_of_index(1), np.zeros((2, 3), F32)
    made = device.empty((2,), F32), device.zeros((2,), F32), device.upload(array), *device.publish(array)
    assert made == (1, 1, 1, 1)
    assert fake.runtime.device == 0


def test_the_device_of_before_comes_back(fake: Cuda) -> None:
    with device_of_index(1).current():
        with device_of_index(2).current():
            assert fake.runtime.device == 2
        assert fake.runtime.device == 1
        with pytest.raises(MemoryError), device_of_index(3).current():
            raise MemoryError
        assert fake.runtime.device == 1
    assert fake.runtime.device == 0


def test_a_new_thread_gets_a_context(fake: Cuda) -> None:
    """Also for the device whose number a thread starts with."""
    found = []

    def work() -> None:
        with device_of_index(0).current():
            found.append(fake.runtime.context)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]


def test_what_is_published_is_complete_and_of_no_pool(fake: Cuda) -> None:
    device_of_index(1).publish(np.zeros(3, F32), np.zeros(4, F32))
    assert fake.events == ["allocator None", "array", "array", "synchronize", "allocator of before"]


def test_a_gpu_has_one_device(fake: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when two threads ask for it first, at once."""
    both = threading.Barrier(2)
    monkeypatch.setattr(cupy_device.CupyDevice, "_read_limits", lambda self: both.wait(60))
    fake.cuda.Device = lambda index: None
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(cupy_device.gpu(97))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] is found[1] is cupy_device.gpu(97)


@pytest.mark.parametrize("invalid", [False, True])
def test_a_capture_that_raises_ends(fake: Cuda, invalid: bool) -> None:
    """And what was raised comes out, not what it makes of the capture."""
    fake.invalid = invalid

    def work() -> None:
        assert fake.capturing == 1
        raise MemoryError

    with pytest.raises(MemoryError):
        device_of_index(0).capture(work)
    assert fake.capturing == 0


def test_a_graph_owns_what_it_recorded(fake: Cuda) -> None:
    array = np.zeros(3).view(type("Array", (np.ndarray,), {}))
    alive = weakref.ref(array)

    def recorded(array: Any) -> Callable[[], None]:
        return device_of_index(0).capture(lambda: array.sum())  # type: ignore[no-any-return]

    replay = recorded(array)
    del array
    assert alive() is not None
    replay()
    assert fake.events == ["graph"]
    del replay
    assert alive() is None
