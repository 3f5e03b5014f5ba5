"""Steps of a stack of layers: what a stream on a device runs.

A step reads the state from one set of arrays and leaves it in another, in turn: within a launch, some blocks still read h
while others write it. Few rows run through `step_kernel`, one launch a layer (a reset-before GRU: two) and nothing
allocated; more rows, and cells without such a kernel, through the sequence's own products and kernels.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..spec import Array
from .cells import cell_of
from .engine import Layer, forward
from .host.device import Device, DeviceArray
from .host.devices import device_of
from .step.kernel import MOST_ROWS, WARPS, OneKernel, ResetArguments, StepArguments, StepForm, reset_kernel, step_kernel
from .stepwise.steps import NOTHING

Step = Callable[[Any, Any], None]  # of one layer: x, y


class Stepper:
    """Over state arrays (L, B, H); `state` are those that hold it after the last step."""

    def __init__(self, layers: Sequence[Layer], batch: int, state: Sequence[DeviceArray], threads: int | None = None) -> None:
        """threads: nothing here uses them."""
        spec = layers[0].specs[0]
        self._device: Device = device_of(state[0])
        self._layers = layers
        self._sets = (list(state), [self._device.empty(array.shape, array.dtype) for array in state])
        self._turn = 0
        cell = cell_of(spec).one_kernel if batch <= MOST_ROWS else None
        self._few = cell is not None
        if cell is not None:
            self._steps = [[self._bound(cell, index, turn) for index in range(len(layers))] for turn in range(2)]
        else:
            self._between = [self._device.empty((1, batch, spec.hidden_size), spec.dtype) for _ in layers[1:]]

    @property
    def state(self) -> list[DeviceArray]:
        return self._sets[self._turn]

    def step(self, x: Array, out: Array) -> None:
        """x (B, I) -> out (B, H), both contiguous. Few rows: nothing is allocated."""
        if self._few:
            self._run(self._turn, x, out)
        else:
            self._run_many(x, out)
        self._turn = 1 - self._turn

    def _run(self, turn: int, x: DeviceArray, out: DeviceArray) -> None:
        address = self._device.address
        source = address(x)
        new = self._sets[1 - turn][0]
        last = len(self._layers) - 1
        for index, step in enumerate(self._steps[turn]):
            result = address(out) if index == last else address(new[index])
            step(source, result)
            source = result

    def _bound(self, cell: OneKernel, index: int, turn: int) -> Step:
        """One layer's step, from one set of state arrays to the other."""
        layer, device = self._layers[index], self._device
        spec, weights = layer.specs[0], layer.on(device)[0]
        old, new = ([array[index] for array in self._sets[i]] for i in (turn, 1 - turn))
        batch, H = old[0].shape
        form = StepForm(cell, spec.input_size, H, batch, 8 * spec.dtype.itemsize, spec.fast_math)
        grid = (-(-H // WARPS),)
        z_, rh = NOTHING, NOTHING
        if cell.after_reset:
            z_, rh = device.empty((batch, H), weights.b.dtype), device.empty((batch, H), spec.dtype)
        arguments = StepArguments(
            W_x=weights.W_x,
            W_h=weights.W_h,
            bias=weights.b,
            b_hn=weights.b_hn,
            h=old[0],
            c=old[1] if len(old) > 1 else NOTHING,
            z_=z_,
            rh=rh,
            h_new=new[0],
            c_new=new[1] if len(new) > 1 else NOTHING,
        )
        step = device.launcher(step_kernel(form), grid, arguments)
        if not cell.after_reset:
            return step
        first = ResetArguments(W_x=weights.W_x, W_h=weights.W_h, bias=weights.b, h=old[0], z_=z_, rh=rh)
        reset = device.launcher(reset_kernel(form), grid, first)

        def both(x: Any, y: Any) -> None:
            reset(x)
            step(x, y)

        return both

    def capture(self, x: DeviceArray, out: DeviceArray) -> Callable[[], None]:
        """A step over these arrays, recorded, one recording for each set of state arrays -> what takes a step with it. They
        live as long as that."""
        if not self._few:
            few = f"at most {MOST_ROWS} rows, and a cell with a kernel for a step"
            raise NotImplementedError(f"capture: {few}: CuPy refuses cuBLAS while a graph is captured")

        def recorded(turn: int) -> Callable[[], None]:
            return self._device.capture(lambda: self._run(turn, x, out))

        graphs = [recorded(turn) for turn in range(2)]

        def step() -> None:
            with self._device.current():
                graphs[self._turn]()
            self._turn = 1 - self._turn

        return step

    def _run_many(self, x: DeviceArray, out: DeviceArray) -> None:
        old, new = self._sets[self._turn], self._sets[1 - self._turn]
        source = x[None]
        targets = [*self._between, out[None]]
        for index, (layer, target) in enumerate(zip(self._layers, targets, strict=True)):
            part = slice(index, index + 1)
            forward(layer, source, [array[part] for array in old], None, target, [array[part] for array in new])
            source = target
