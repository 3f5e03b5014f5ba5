"""The `Cell` protocol lists what the passes must know of a layer's cell. Each other file is a cell: its loops over the steps,
with the kernels that they launch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..host.device import DeviceArray
from ..run import Run
from ..saved import SavedDirection
from ..step.kernel import OneKernel


class Columns(NamedTuple):
    """Columns of `d_gates`, and the rows of W_x that made those gates; both are counted in gates."""

    gradients: range
    gates: range


class Cell(Protocol):
    """A cell of the CUDA backend."""

    of_x: tuple[Columns, ...]
    """The columns of `d_gates` from which dW_x, db and dx are made."""
    of_h: tuple[range, ...]
    """The gates by the products of a step, in W_h's order: the first reads h, the second what was saved as `extra`. Their
    gradients come first in `d_gates`."""
    of_biases: tuple[tuple[str, int], ...] = ()
    """Biases beside b, of one gate each: the parameter, and its gradient's place."""
    one_kernel: OneKernel | None = None
    """How one kernel makes a step of a few rows; None: steps run as sequences do."""
    persistent: bool = False
    """True where persistent kernels run the cell."""

    @property
    def gradients(self) -> int:
        """The number of gates' gradients that a unit has in `d_gates`."""
        return self.of_x[-1].gradients.stop

    def empty_extra(self, run: Run) -> DeviceArray:
        """Makes `SavedDirection.extra`: a factor of the second product, else numbers that are computed with."""
        empty = run.wide_empty if len(self.of_h) == 1 else run.empty
        return empty(run.steps, run.batch, run.spec.hidden_size)

    def forward(
        self,
        run: Run,
        gates: DeviceArray,  # (T, B, G*H): W_x x without its bias; overwritten
        initial: Sequence[DeviceArray],  # (B, H) each
        y: DeviceArray,  # (T, B, H) of any strides, units side by side
        final: Sequence[DeviceArray],  # (B, H) each
        saved: SavedDirection | None,  # its gates are `gates`
    ) -> None:
        """Runs all steps: fills y, with zeros past the lengths, the final state and what is to be saved."""

    def backward(
        self,
        run: Run,
        saved: SavedDirection,
        initial: Sequence[DeviceArray],  # (B, H) each
        y: DeviceArray,  # (T, B, H), as the forward pass left it
        dy: DeviceArray,  # (T, B, H) of any strides, units side by side
        d_state: Sequence[DeviceArray],  # (B, H) each, of the final state, wide; becomes that of the initial one
        d_gates: DeviceArray,  # (T, B, gradients * H)
    ) -> None:
        """Runs all steps back: fills d_gates, with zeros past the lengths, and moves d_state back."""
