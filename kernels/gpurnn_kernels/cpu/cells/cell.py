"""The `Cell` protocol: what the programs of a layer must know of its cell. Each other file with a cell's name is a cell."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from ...cells import Equations, Number
from ...spec import Spec
from ..codegen.activations import ACTIVATIONS, CLIP
from ..codegen.vector import Vector
from ..products.product import Product

H_PREV, FED = 1, 2  # what a gate's rows of W_h are multiplied by: see weight_gradients.py
EQUATIONS = Equations(ACTIVATIONS, CLIP)
Kernel = Callable[..., Any]


def loaded(limit: Any) -> Number | None:
    """The value of the operand `limit`, which may be absent."""
    return None if limit is None else limit.load()


def hand_on(h: Vector, h_next: Any, y: Any) -> None:
    """Stores a step's h for the next one, and as y, with one NaN for all."""
    h = h.of.canonical(h)
    h_next.store(h)
    y.store(h)


class Steps(NamedTuple):
    """The kernels of a layer: C functions that the loops over a sequence call by address, one for each phase of a step."""

    project: Kernel
    """project(job, share, x, x_row, slots, unused): fills the slots of a chunk of steps with W_x x + b."""
    step: tuple[Kernel, ...]
    """step(job, share, first, rows, s, slot)"""
    step_saved: tuple[Kernel, ...]
    """The same, leaving what `step_back` reads."""
    step_streaming: tuple[Kernel, ...]
    """The same, storing it past the caches where the cell can."""
    step_back: tuple[Kernel, ...]
    """step_back(job, share, first, rows, s, before)"""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them."""
        return self.project, *self.step, *self.step_saved, *self.step_streaming, *self.step_back


class Cell(Protocol):
    """A cell of the CPU backend."""

    products: tuple[Product, ...]
    """The phases of a step: each product waits for all units of the one before."""
    planes: tuple[str, ...] = ()
    """Rows of units that a forward pass needs besides h: their fields in a job."""
    planes_back: tuple[str, ...] = ()
    """Rows of units that a backward pass needs besides dh."""
    saved_gates: int
    """Vectors that a step leaves for the backward pass, a vector of units."""
    has_c: bool = False
    """Whether there is a c beside h: in the state, and saved."""
    biases: tuple[tuple[str, str], ...] = ()
    """Biases of one gate's rows each: the field in a job, and the parameter."""
    shares_vectors: bool = False
    """Whether the kernels know of gates that share vectors in the last panel."""
    left_by_step: str | None = None
    """The job's field of rows of units that a step back leaves for the weight gradients beside the gates' gradients: what a
    later product was fed (`fed`), or gradients of their own that W_h saw (`dq`)."""
    options_on_amx: bool = True
    """Whether AMX may make the recurrent product back through time of layers with options."""
    recurrent: tuple[tuple[int, int], ...]
    """By gate: which gradients its rows of W_h saw (the gate's own, or `num_gates` for `dq`), and what they were multiplied by
    (H_PREV, FED)."""

    def steps(self, spec: Spec) -> Steps:
        """The kernels of a layer's form."""
        ...

    def all_steps(self) -> Iterator[Steps]:
        """The kernels of every form, for compiling ahead."""
        ...
