"""gpurnn.interop.torch on CUDA tensors, without a GPU: the arrays lie on the emulated device, and stand-ins for what PyTorch
and CuPy know of devices and streams keep account."""

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ptx_emulator.compile import why_not

torch = pytest.importorskip("torch")
if why := why_not():
    pytest.skip(why, allow_module_level=True)

from helpers import assert_near, new_layer  # noqa: E402

from gpurnn.interop.torch import calls, modules  # noqa: E402
from ptx_emulator.device import EmulatedDevice  # noqa: E402

INDEX, STREAM = 1, 0x5EED  # of the GPU that the tensors lie on, and PyTorch's current stream there
KINDS = ["LSTM", "GRU"]


class OnGPU(torch.Tensor):  # type: ignore[misc]
    """A tensor that says that it lies on a GPU, and lets nobody read it on the host."""

    is_cuda = True
    device = torch.device("cuda", INDEX)

    def cpu(self, *_: Any) -> Any:
        raise AssertionError("a tensor went to the host")

    numpy = tolist = item = cpu


def on_gpu(tensor: Any) -> OnGPU:
    found: OnGPU = tensor.detach().clone().as_subclass(OnGPU)
    return found


def on_host(tensor: Any) -> Any:
    return tensor.detach().as_subclass(torch.Tensor).numpy()


class World:
    """The current device and stream, for PyTorch and for CuPy, and how often the host waited."""

    def __init__(self) -> None:
        self.device = EmulatedDevice()
        self.torch_device = 0
        self.stream: int | None = None  # of CuPy's, on the device; None: its null stream
        self.waits = 0

    @contextmanager
    def _with(self, name: str, value: Any) -> Iterator[None]:
        before = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, before)

    def on_torch(self, device: Any) -> Any:
        return self._with("torch_device", device.index)

    def on_stream(self, stream: Any) -> Any:
        self.device.require_current("a stream")
        return self._with("stream", stream.__cuda_stream__()[1])

    def torch_stream(self, device: Any) -> Any:
        assert device.index == INDEX
        return types.SimpleNamespace(cuda_stream=STREAM, synchronize=self.wait)

    def wait(self) -> None:
        self.waits += 1

    def check(self) -> None:
        """An array changes hands: both libraries are where its tensor is."""
        assert (self.torch_device, self.stream) == (INDEX, STREAM)

    def array(self, tensor: OnGPU) -> Any:
        self.check()
        return self.device.upload(on_host(tensor))

    def tensor(self, array: Any) -> OnGPU:
        self.check()
        assert array.home is self.device
        return on_gpu(torch.from_numpy(np.array(array)))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    cuda = types.SimpleNamespace(Stream=types.SimpleNamespace(from_external=made.on_stream))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda, from_dlpack=made.array))
    device = types.SimpleNamespace(gpu=lambda index: made.device if index == INDEX else EmulatedDevice())
    monkeypatch.setitem(sys.modules, "gpurnn_kernels.cuda.host.cupy_device", device)
    monkeypatch.setattr(torch.cuda, "current_stream", made.torch_stream)
    monkeypatch.setattr(torch.cuda, "device", made.on_torch)
    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", made.tensor)
    return made


def problem(kind: str) -> tuple[Any, Any, list[OnGPU]]:
    """PyTorch's module on the CPU, its shape, and its weights on the GPU."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True)
    return module, modules._shape(module, (0, 2)), [on_gpu(one) for one in module._flat_weights]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_calls_follow_pytorchs_stream(world: World, kind: str, with_state: bool) -> None:
    """Calls run on the stream of x's device while another device is current. Values and gradients are PyTorch's."""
    module, shape, weights = problem(kind)
    x, dy = torch.randn(4, 2, 3, requires_grad=True), torch.randn(4, 2, 8)
    state = [torch.randn(4, 2, 4, requires_grad=True) for _ in range(2 if kind == "LSTM" else 1)] if with_state else []
    y, final = module(x, (tuple(state) if kind == "LSTM" else state[0]) if with_state else None)
    y.backward(dy)

    with EmulatedDevice().current():
        layer = calls.Prepared.of(shape, weights).layer
        results, vjp = calls.run(layer, on_gpu(x), [on_gpu(one) for one in state], None, True)
        gradients = calls.gradients(vjp, shape, OnGPU.device, len(state), on_gpu(dy), None)
    assert (world.torch_device, world.stream) == (0, None)
    expected = [y, *(final if kind == "LSTM" else (final,))]
    assert_near([on_host(one) for one in results], [one.detach().numpy() for one in expected], 2e-6)
    expected = [one.grad.numpy() for one in (x, *state, *module._flat_weights)]
    assert_near([on_host(one) for one in gradients], expected, 1e-5)


CHANGES: dict[str, Callable[[list[OnGPU]], Any]] = {
    "data": lambda weights: weights[3].data.mul_(3),
    "another": lambda weights: weights.__setitem__(0, on_gpu(weights[0] * 2)),
    "dtype": lambda weights: weights.__setitem__(slice(None), [one.double() for one in weights]),
    "one": lambda weights: weights[-1].data[-1].add_(1e-6),
}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("change", CHANGES)
def test_values_decide_whether_weights_are_new(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """By one comparison, which is what waits for the GPU."""
    _, shape, weights = problem("LSTM")
    prepared, compared = calls.Prepared.of(shape, weights), []
    equal = torch.equal
    monkeypatch.setattr(torch, "equal", lambda *pair: compared.append(pair) or equal(*pair))
    assert prepared.stands_for(weights)
    assert prepared.stands_for([on_gpu(one) for one in weights])
    assert len(compared) == 2
    version = weights[3]._version
    CHANGES[change](weights)
    assert change != "data" or weights[3]._version == version
    assert not prepared.stands_for(weights)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_others_may_have_next_is_complete(world: World, kind: str) -> None:
    """Its weights were made in the order of one stream; the next call may be on another."""
    _, shape, weights = problem(kind)
    calls.Prepared.of(shape, weights)
    assert world.waits == 1


@pytest.mark.usefixtures("world")
def test_weights_that_do_not_fit() -> None:
    """No kernel reads past their ends."""
    _, shape, weights = problem("LSTM")
    weights[1] = on_gpu(weights[1][:, :3])
    with pytest.raises(ValueError, match=r"layers.0.W_h: expected shape \(16, 4\), got \(16, 3\)"):
        calls.Prepared.of(shape, weights)
    weights[1] = on_gpu(torch.zeros(16, 4, dtype=torch.float64))
    with pytest.raises(TypeError, match="W_h: expected float32, got float64"):
        calls.Prepared.of(shape, weights)


def test_parameters_of_a_plain_layer_are_the_hosts() -> None:
    layer = new_layer("lstm", 3, 4)
    with pytest.raises(TypeError, match="W_h: expected a NumPy array like the layer's other parameters, got an array on H100"):
        layer.load_params({**layer.params, "layers.0.W_h": EmulatedDevice().zeros((16, 4), np.float32)})
