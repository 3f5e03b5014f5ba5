"""A backend exports what this protocol lists: `gpurnn_kernels.cpu` is a module of this shape.

Shapes: T steps, B rows, I inputs, H units, P units of h (H, or a projected layer's fewer), D directions. A state is h (.., B,
P) and, for an LSTM, c (.., B, H). Arrays are the backend's own (NumPy on the CPU), of the spec's dtype, and checked by the
caller: the kernels trust them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from .spec import Array, Parameters, Spec


class StepperLike(Protocol):
    """Steps of a stack of one-directional layers, one row of x at a time."""

    @property
    def state(self) -> Sequence[Array]:
        """The arrays that hold the state now. They are the arrays that were given, or others of their kind in turn with
        them."""

    def step(self, x: Array, out: Array) -> None:
        """Makes out (B, P) of x (B, I), both contiguous, and moves the state on."""


class PlainCallLike(Protocol):
    """A stack of layers made ready for one shape. Its calls have no initial state and no lengths."""

    @property
    def bytes(self) -> int:
        """The bytes that the call holds, at least."""

    def run(self, x: Array, y: Array, between: Array, h: Array, c: Array) -> None:
        """Fills y and the final state h and c. x and y are 3-D and contiguous; `between`, scratch for stacked layers, is
        like y."""


class LayerGradientsLike(Protocol):
    """The gradients that `backward` gives."""

    @property
    def x(self) -> Array: ...  # (T, B, I)
    @property
    def parameters(self) -> tuple[dict[str, Array], ...]: ...  # a direction each


class Kernels(Protocol):
    """A backend. Its prepared layer and what its forward pass saves are `Any`: only the backend looks inside."""

    def prepare(self, specs: Sequence[Spec], parameters: Sequence[Parameters], previous: Any = None) -> Any:
        """Packs one layer and makes it ready to run: a spec and its arrays for each direction. `previous` is what an
        earlier call gave for the same specs and other arrays; its scratch memory passes on."""

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
        """Fills y (T, B, D * P), already zero past `lengths`, and the final state, arrays (D, B, ..), from x (T, B, I).

        With `keep` it gives what `backward` reads. That holds copies of x and y, except where x_stays or y_stays says that the
        caller's array stays as it is.
        """

    def backward(
        self,
        layer: Any,
        saved: Any,
        state: Sequence[Array],
        lengths: Array | None,
        dy: Array | None,
        dfinal: Sequence[Array | None],
        dstate: Sequence[Array],
    ) -> LayerGradientsLike:
        """Gives the gradients of a call of `forward` with keep=True from an initial state, and fills dstate, the gradients
        of that state. dy and dfinal, the gradients of y and of the final state, are None for zeros."""

    def describe(self, layer: Any, x: Array, lengths: Array | None) -> str:
        """Says in one line what `forward` would run for x (T, B, I), and why."""

    def PlainCall(self, layers: Sequence[Any], steps: int, batch: int, strides: Sequence[int]) -> PlainCallLike:
        """Makes plain calls ready. strides: bytes from step to step and from row to row, of x, then of y."""

    def Stepper(self, layers: Sequence[Any], batch: int, state: Sequence[Array], threads: int | None = None) -> StepperLike:
        """Makes steps ready over state arrays (L, B, ..), which they move on. threads: the number that steps may use on a
        CPU; None: as many as calls."""
