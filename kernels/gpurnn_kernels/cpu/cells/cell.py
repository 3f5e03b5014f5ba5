"""The `Cell` protocol lists what the programs of a layer must know of its cell. Each other file with a cell's name is a
cell."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from ...cells import Equations, Number
from ...spec import Spec
from ..codegen.activations import ACTIVATIONS, CLIP
from ..codegen.vector import Vector
from ..passes.weight_gradients import FED as FED
from ..passes.weight_gradients import H_PREV as H_PREV
from ..products.product import Product

EQUATIONS = Equations(ACTIVATIONS, CLIP)
Kernel = Callable[..., Any]


def loaded(limit: Any) -> Number | None:
    """Loads the operand `limit`; None where it is absent."""
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
    """step(job, share, first, rows, s, slot): makes step s of `rows` rows from `first` on, by the slots from `slot` on."""
    step_saved: tuple[Kernel, ...]
    """step_saved does what step does, and saves what `step_back` reads."""
    step_streaming: tuple[Kernel, ...]
    """step_streaming does what step_saved does, and saves past the caches where the cell can."""
    step_back: tuple[Kernel, ...]
    """step_back(job, share, first, rows, s, before): takes step s back; `before` rows had step s + 1."""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels of the layer."""
        return self.project, *self.step, *self.step_saved, *self.step_streaming, *self.step_back


class Cell(Protocol):
    """A cell of the CPU backend."""

    products: tuple[Product, ...]
    """The products of a step: each waits for all units of the one before."""
    planes: tuple[str, ...] = ()
    """Rows of units that a forward pass needs besides h: their fields in a share."""
    planes_back: tuple[str, ...] = ()
    """Rows of units that a backward pass needs besides dh: their fields in a share."""
    saved_gates: int
    """Vectors that a step saves for the backward pass, for each vector of units."""
    biases: tuple[tuple[str, str], ...] = ()
    """Biases beside b, of one gate each: the field in a job, and the parameter."""
    shares_vectors: bool = False
    """True where the kernels can have gates share vectors in the last panel."""
    left_by_step: str | None = None
    """The job's field of rows of units that a step back leaves for the weight gradients beside the gates' gradients: what a
    later product was fed (`fed`), or gradients of their own that W_h saw (`dq`)."""
    options_on_amx: bool = True
    """True where AMX may make the recurrent product back through time for layers with options."""
    recurrent: tuple[tuple[int, int], ...]
    """Two numbers a gate: the gradients that its rows of W_h saw (the gate's own, or `num_gates` for `dq`), and the source
    that the rows were multiplied by (H_PREV, FED)."""

    def steps(self, spec: Spec) -> Steps:
        """Gives the kernels of a layer's form."""
        ...

    def all_steps(self) -> Iterator[Steps]:
        """Gives the kernels of every form, for compiling them ahead."""
        ...
