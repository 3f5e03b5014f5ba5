"""The CUDA backend's sequence-level calls: one layer, all its directions, over device arrays. `protocol.py` has the
contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec import REDUCED, Parameters, Spec
from . import persistent
from .cells import cell_of
from .gradients import DirectionGradients
from .host.device import Device, DeviceArray
from .host.devices import device_of
from .host.weights import Weights, upload
from .pointwise import sums as whole
from .run import LARGEST, Run
from .saved import Saved, SavedDirection

PLANS = 64  # by pass, direction, batch and device, that are kept


class Layer:
    """The parameters of one layer, and their copies on the devices that have asked."""

    def __init__(self, specs: Sequence[Spec], parameters: Sequence[Parameters]) -> None:
        self.specs, self.parameters = tuple(specs), tuple(parameters)
        self._uploaded: dict[Any, list[Weights]] = {}
        self._plans: dict[Any, Any] = {}
        self._zeros: dict[Any, DeviceArray] = {}

    def on(self, device: Device) -> list[Weights]:
        """A direction each, uploaded once."""
        found = self._uploaded.get(device)
        if found is None:
            made = [upload(device, *one) for one in zip(self.specs, self.parameters, strict=True)]
            # of two threads that come first, one uploads in vain
            found = self._uploaded.setdefault(device, made)
        return found

    def plan(self, direction: int, batch: int, device: Device) -> persistent.ForwardPlan | persistent.Refusal:
        """How the forward pass fits on the chip, or why it does not."""
        return self._remembered(persistent.fit_forward, direction, batch, device)  # type: ignore[no-any-return]

    def plan_back(self, direction: int, batch: int, device: Device) -> persistent.BackwardPlan | persistent.Refusal:
        return self._remembered(persistent.fit_backward, direction, batch, device)  # type: ignore[no-any-return]

    def _remembered(self, plan: Any, direction: int, batch: int, device: Device) -> Any:
        key = (plan, direction, batch, device)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            spec = self.specs[direction]
            refusal = persistent.Refusal(f"no persistent kernel runs {spec.cell}")
            found = self._plans[key] = plan(spec, batch, device) if cell_of(spec).persistent else refusal
        return found

    def zeros(self, device: Device, batch: int) -> DeviceArray:
        """(B, H), which nobody writes to: an initial state that was not given. A device's largest batch has made it."""
        found = self._zeros.get(device)
        if found is None or len(found) < batch:
            spec = self.specs[0]
            # of two threads that come at once, each has its own for this call, whichever stays
            (found,) = device.publish(np.zeros((batch, spec.hidden_size), spec.dtype))
            self._zeros[device] = found
        return found[:batch]


def prepare(specs: Sequence[Spec], parameters: Sequence[Parameters], previous: Layer | None = None) -> Layer:
    """Raises NotImplementedError for options that no CUDA kernel has."""
    spec = specs[0]
    if spec.precision in REDUCED:
        raise NotImplementedError(f"precision {spec.precision!r} is not built on CUDA: call the layer with NumPy arrays")
    for name, asked in (("proj_size", spec.proj_size), ("peepholes", spec.peepholes), ("clip", spec.clip is not None)):
        if asked:
            raise NotImplementedError(f"{name} is not built on CUDA: call the layer with NumPy arrays")
    return Layer(specs, parameters)


def forward(
    layer: Layer,
    x: DeviceArray,
    state: Sequence[DeviceArray | None],
    lengths: DeviceArray | None,
    y: DeviceArray,
    final: Sequence[DeviceArray],
    *,
    keep: bool = False,
    x_stays: bool = False,
    y_stays: bool = False,
) -> Saved | None:
    """Runs one layer: fills y (T, B, D * H) and the final state. With `keep` it gives what `backward` reads, with copies of x
    and y where these do not stay as they are."""
    steps, batch, inputs = x.shape
    device = device_of(x)
    found = []
    for d, (spec, weights) in enumerate(zip(layer.specs, layer.on(device), strict=True)):
        H, cell = spec.hidden_size, cell_of(spec)
        initial = [layer.zeros(device, batch) if array is None else array[d] for array in state]
        last = [array[d] for array in final]
        if batch == 0 or steps == 0:
            for to, source in zip(last, initial, strict=True):
                to[...] = source
            continue
        run = Run(device, spec, weights, steps, batch, lengths)
        gates = run.wide_empty(steps, batch, spec.gates * H)
        run.multiply(_flat(x).reshape(-1, inputs), weights.W_x, gates.reshape(steps * batch, -1), transpose_b=True)
        saved = SavedDirection(gates, cell.empty_extra(run)) if keep else None
        plan, of_y = layer.plan(d, batch, device), y[..., d * H : (d + 1) * H]
        if isinstance(plan, persistent.ForwardPlan):
            arrays = {"xp": gates, "initial": initial, "lengths": lengths, "y": of_y, "final": last, "saved": saved}
            persistent.run_forward(device, plan, weights, **arrays)
        else:
            cell.forward(run, gates, initial, of_y, last, saved)
        if saved is not None:
            found.append(saved)
    return Saved(x if x_stays else x.copy(), y if y_stays else y.copy(), found) if keep else None


@dataclass(frozen=True)
class LayerGradients:
    x: DeviceArray  # (T, B, I)
    parameters: tuple[dict[str, DeviceArray], ...]  # a direction each


def backward(
    layer: Layer,
    saved: Saved,
    state: Sequence[DeviceArray],
    lengths: DeviceArray | None,
    dy: DeviceArray | None,
    dfinal: Sequence[DeviceArray | None],
    dstate: Sequence[DeviceArray],
) -> LayerGradients:
    """Gives the gradients of a call of `forward` with keep=True from an initial state, and fills dstate, the initial state's.
    `saved` may be used again."""
    x, y = saved.x, saved.y
    steps, batch, _ = x.shape
    device = device_of(x)
    d_final = [
        device.zeros(first.shape, first.dtype) if last is None else last for first, last in zip(state, dfinal, strict=True)
    ]
    # becomes the gradient of the initial state
    for first, last in zip(dstate, d_final, strict=True):
        first[...] = last
    if batch == 0 or steps == 0:
        zeros = [{name: device.zeros(a.shape, a.dtype) for name, a in one.items()} for one in layer.parameters]
        return LayerGradients(device.zeros(x.shape, x.dtype), tuple(zeros))
    x, y = _flat(x), _flat(y)
    if lengths is not None:
        x = whole.masked(device, x, lengths)
    dx = None
    found = []
    for d, (spec, weights) in enumerate(zip(layer.specs, layer.on(device), strict=True)):
        H, cell = spec.hidden_size, cell_of(spec)
        part = slice(d * H, (d + 1) * H)
        run = Run(device, spec, weights, steps, batch, lengths)
        d_gates = run.empty(steps, batch, cell.gradients * H)
        of_y = None if dy is None else _kernels_can_read(dy[..., part])
        initial, last, first = ([array[d] for array in arrays] for arrays in (state, d_final, dstate))
        plan = layer.plan_back(d, batch, device)
        if isinstance(plan, persistent.BackwardPlan):
            persistent.run_backward(
                device,
                plan,
                weights,
                saved=saved.directions[d],
                y=y[..., part],
                initial=initial,
                lengths=lengths,
                dy=of_y,
                dfinal=last,
                d_gates=d_gates,
                dinitial=first,
            )
        else:
            if of_y is None:
                of_y = run.zeros(steps, batch, H)
            wide = [run.widened(array) for array in first]
            cell.backward(run, saved.directions[d], initial, y[..., part], of_y, wide, d_gates)
            for to, source in zip(first, wide, strict=True):
                if to is not source:
                    to[...] = source
        flat_y = y.reshape(steps * batch, -1)[:, part]
        one = DirectionGradients(run, cell, saved.directions[d], x, flat_y, initial[0], d_gates)
        if dx is None:
            dx = run.wide_empty(*x.shape)
        one.add_to(dx, accumulate=d > 0)
        names = layer.parameters[d]
        found.append({name: array for name, array in one.parameters().items() if name in names})
    return LayerGradients(run.narrowed(dx), tuple(found))


def _kernels_can_read(dy: DeviceArray) -> DeviceArray:
    """Itself, or a copy where its strides are not of a kind that kernels take."""
    return dy if all(0 <= stride < LARGEST for stride in dy.strides) else dy.copy()


def _flat(array: DeviceArray) -> DeviceArray:
    """Itself, or a copy whose steps and rows lie one after the other."""
    return array if array.flags.c_contiguous else array.copy()


def describe(layer: Layer, x: DeviceArray, lengths: DeviceArray | None) -> str:
    """In one line, what `forward` would run and why."""
    device, spec = device_of(x), layer.specs[0]
    plan = layer.plan(0, x.shape[1], device)
    how = str(plan) if isinstance(plan, persistent.ForwardPlan) else f"stepwise, as {plan.reason}"
    return f"{spec.cell}, {spec.dtype.name}, {device.limits.name}: {how}"
