"""The steps of a forward pass: a kernel bound to all of them, and what their records have in common."""

from collections.abc import Callable
from typing import Any

from ..host.device import DeviceArray, Kernel, Launch
from ..pointwise.form import Variant
from ..run import Run, strides

NOTHING = 0  # the address of an array that a kernel's variant does not touch


class Steps:
    """A kernel over all steps, forth or back. The sequence's first step reads the state that the caller gave. Where `ends`,
    the last one leaves a state. Each way to bind the arguments is made once."""

    def __init__(
        self,
        run: Run,
        variant: Variant,
        kernel: Callable[[Variant], Kernel],
        arguments: Callable[[bool], Any],
        *,
        ends: bool = False,
    ) -> None:
        """arguments(first): gives the kernel's record; first: whether the step is the sequence's first."""
        self._run, self._variant, self._kernel, self._arguments, self._ends = run, variant, kernel, arguments, ends
        self._bound: dict[tuple[bool, bool], Launch] = {}

    def __call__(self, t: int) -> None:
        order = self._run.order
        first, last = which = t == order[0], self._ends and t == order[-1]
        launch = self._bound.get(which)
        if launch is None:
            variant = self._variant.at_end() if last else self._variant
            launch = self._run.device.launcher(self._kernel(variant), self._run.grid(variant), self._arguments(first))
            self._bound[which] = launch
        launch(t)


class Previous:
    """Where h of the step before is: given by the caller, then in y; in ragged batches, where y is 0 past a length, in the
    array of the final state, which moves on."""

    def __init__(self, run: Run, initial: DeviceArray, y: DeviceArray, h_n: DeviceArray) -> None:
        self._run, self._initial, self._y, self._h_n = run, initial, y, h_n

    def matrix(self, t: int) -> DeviceArray:
        """Gives h of the step before, (B, H)."""
        if t == self._run.order[0]:
            return self._initial
        return self._y[t + self._run.to_previous] if self._run.lengths is None else self._h_n

    def arguments(self, first: bool) -> dict[str, Any]:
        """Gives the fields of a kernel's record that say where h of the step before is."""
        if first or self._run.lengths is not None:
            array = self._initial if first else self._h_n
            return {"h_prev": array, "h_prev_t": 0, "h_prev_row": array.strides[0], "to_previous": 0}
        t, row = strides(self._y)
        return {"h_prev": self._y, "h_prev_t": t, "h_prev_row": row, "to_previous": self._run.to_previous}


def ragged(run: Run) -> dict[str, Any]:
    """Gives the fields of a kernel's record that say how long rows are."""
    return {"lengths": NOTHING if run.lengths is None else run.lengths, "batch": run.batch}


def output(y: DeviceArray) -> dict[str, Any]:
    """Gives the fields of a kernel's record that say where y is."""
    t, row = strides(y)
    return {"y": y, "y_t": t, "y_row": row}
