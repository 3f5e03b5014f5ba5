"""A prepared layer: its packed weights and the programs that have run on them."""

from collections.abc import Sequence

from ...spec import Array, Parameters, Spec
from ..codegen.target import target
from ..threads.partition import Schedule, schedule, vectors_per_panel
from .backward import BackwardProgram
from .buffers import Bound, BufferPool
from .forward import ForwardProgram
from .weights import Weights, Workspace

PROGRAMS = Bound(32 << 20)  # bytes of the programs of all layers that nobody runs


class Programs:
    """The programs of one layer that have run, by T, B and threads, and the workspace of its weights. Layers with other
    weights of the same shapes use them again."""

    def __init__(self) -> None:
        self.forward: BufferPool[ForwardProgram] = BufferPool(PROGRAMS, lambda program: program.bytes)
        self.backward: BufferPool[BackwardProgram] = BufferPool(PROGRAMS, lambda program: program.bytes)
        self.workspace = Workspace()


class Layer:
    """The packed weights of one layer, a `Weights` a direction, and the programs that run on weights of their shapes."""

    def __init__(self, directions: Sequence[Weights], programs: Programs) -> None:
        self.directions = tuple(directions)
        self.spec = directions[0].spec
        self.programs = programs


def prepare(specs: Sequence[Spec], parameters: Sequence[Parameters], previous: Layer | None = None) -> Layer:
    programs = Programs() if previous is None else previous.programs
    return Layer([Weights(*one, programs.workspace) for one in zip(specs, parameters, strict=True)], programs)


def plan(layer: Layer, steps: int, batch: int, threads: int, lengths: Array | None = None) -> Schedule:
    """Says how a call with `batch` rows is shared out. lengths: of the rows, longest first."""
    spec, vectors = layer.spec, vectors_per_panel(layer.spec)
    return schedule(spec, len(layer.directions), batch, threads, target(), vectors, lengths, steps=steps)
