"""What a backend exports: `gpurnn_kernels.cpu` is a module of this shape.

Shapes: T steps, B rows, I inputs, H units, P units of h (H, or a projected layer's fewer), D directions. A state is h
(.., B, P) and, for an LSTM, c (.., B, H). Arrays are the backend's own (NumPy on the CPU), of the spec's
dtype, checked by the caller: the kernels trust them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from .spec import Array, Parameters, Spec


class StepperLike(Protocol):
    """Steps of a stack of one-directional layers, one row of x at a time."""

    @property
    def state(self) -> Sequence[Array]:
        """The arrays that hold the state now: those it was given, or others of their kind in turn with them."""

    def step(self, x: Array, out: Array) -> None:
        """x (B, I) -> out (B, P), both contiguous; the state moves on."""


class PlainCallLike(Protocol):
    """A stack of layers made ready for one shape: calls without initial state and lengths."""

    @property
    def bytes(self) -> int:
        """Bytes that the call holds, at least."""

    def run(self, x: Array, y: Array, between: Array, h: Array, c: Array) -> None:
        """x -> y, both 3-D and contiguous; `between` like y, scratch for stacked layers; h, c: final state."""


class LayerGradientsLike(Protocol):
    """What `backward` gives."""

    @property
    def x(self) -> Array: ...  # (T, B, I)
    @property
    def parameters(self) -> tuple[dict[str, Array], ...]: ...  # a direction each


class Kernels(Protocol):
    """A backend. `Any` stands for its prepared layer and for what its forward pass keeps: only the backend looks inside."""

    def prepare(self, specs: Sequence[Spec], parameters: Sequence[Parameters], previous: Any = None) -> Any:
        """One layer, a spec and its arrays a direction, packed and ready to run. `previous`: what this gave for the same
        specs and other arrays; scratch memory passes on."""

    def forward(
        self,
        layer: Any,
        x: Array,
        state: Sequence[Array | None],
        lengths: Array | None,
        y: Array,
        final: Sequence[Array],
        *,
        keep: bool = False,
        x_stays: bool = False,
        y_stays: bool = False,
    ) -> Any:
        """x (T, B, I) -> fills y (T, B, D * P), already zero past `lengths`, and the final state, arrays (D, B, ..).

        keep: gives what `backward` reads, with copies of x and y but for those that stay as they are.
        """

    def backward(
        self,
        layer: Any,
        kept: Any,
        state: Sequence[Array],
        lengths: Array | None,
        dy: Array | None,
        dfinal: Sequence[Array | None],
        dstate: Sequence[Array],
    ) -> LayerGradientsLike:
        """The gradients of a call of `forward` with keep=True from an initial state; fills dstate, those of
        the latter. dy and dfinal, of the final state: None for zeros."""

    def describe(self, layer: Any, x: Array, lengths: Array | None) -> str:
        """In one line, what `forward` would run for x (T, B, I), and why."""

    def PlainCall(self, layers: Sequence[Any], steps: int, batch: int, strides: Sequence[int]) -> PlainCallLike:
        """strides: bytes from step to step and from row to row, of x, then of y."""

    def Stepper(self, layers: Sequence[Any], batch: int, state: Sequence[Array], threads: int | None = None) -> StepperLike:
        """Over state arrays (L, B, ..) that it moves on. threads: that steps may use on a CPU; None: as many as calls."""
