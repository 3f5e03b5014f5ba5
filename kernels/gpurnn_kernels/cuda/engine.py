"""The CUDA backend's sequence-level calls: one layer, all its directions, over device arrays. `protocol.py` has the contract."""

from collections.abc import Sequence
from typing import Any

from ..spec import Array, Parameters, Spec
from . import stepwise
from .device import Device, DeviceArray
from .devices import device_of
from .run import Run
from .saved import Saved
from .weights import Weights, upload


class Layer:
    """The parameters of one layer, and their copies on the devices that have asked."""

    def __init__(self, specs: Sequence[Spec], parameters: Sequence[Parameters]) -> None:
        self.specs, self.parameters = tuple(specs), tuple(parameters)
        self._uploaded: dict[Any, list[Weights]] = {}

    def on(self, device: Device) -> list[Weights]:
        """A direction each, uploaded once."""
        found = self._uploaded.get(device)
        if found is None:
            made = [upload(device, *one) for one in zip(self.specs, self.parameters, strict=True)]
            # of two threads that come first, one uploads in vain
            found = self._uploaded.setdefault(device, made)
        return found


def prepare(specs: Sequence[Spec], parameters: Sequence[Parameters], previous: Layer | None = None) -> Layer:
    """Raises NotImplementedError for options that no CUDA kernel has."""
    spec = specs[0]
    for name, asked in (("proj_size", spec.proj_size), ("peepholes", spec.peepholes), ("clip", spec.clip is not None)):
        if asked:
            raise NotImplementedError(f"{name} is not built on CUDA: call the layer with NumPy arrays")
    return Layer(specs, parameters)


def _initial(device: Device, spec: Spec, batch: int, given: Sequence[DeviceArray | None], direction: int) -> list[DeviceArray]:
    """(B, H) each, zeros where there is none."""
    size = (batch, spec.hidden_size)
    return [device.zeros(size, spec.dtype) if array is None else array[direction] for array in given]


def forward(
    layer: Layer,
    x: DeviceArray,
    state: Sequence[DeviceArray | None],
    lengths: DeviceArray | None,
    y: DeviceArray,
    final: Sequence[DeviceArray],
    *,
    keep: bool = False,
) -> list[Saved]:
    """Runs one layer: fills y (T, B, D * H) and the final state; -> what `backward` reads, if it is to be kept."""
    steps, batch, inputs = x.shape
    device = device_of(x)
    found = []
    for d, (spec, weights) in enumerate(zip(layer.specs, layer.on(device), strict=True)):
        H, item = spec.hidden_size, spec.dtype.itemsize
        initial, last = _initial(device, spec, batch, state, d), [array[d] for array in final]
        if batch == 0 or steps == 0:
            for to, source in zip(last, initial, strict=True):
                to[...] = source
            continue
        run = Run(device, spec, weights, steps, batch, lengths)
        rows = x if x.strides == (batch * inputs * item, inputs * item, item) else x.copy()
        gates = run.empty(steps, batch, spec.gates * H)
        run.multiply(rows.reshape(-1, inputs), weights["W_x"], gates.reshape(steps * batch, -1), transpose_b=True)
        saved = Saved(gates, run.empty(steps, batch, H)) if keep else None
        stepwise.forward(run, gates, initial, y[..., d * H : (d + 1) * H], last, saved)
        if saved is not None:
            found.append(saved)
    return found


def describe(layer: Layer, x: Array, lengths: Array | None) -> str:
    """In one line, what `forward` would run and why."""
    return "stepwise"
