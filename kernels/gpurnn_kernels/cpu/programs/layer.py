"""A prepared layer: its packed weights and the programs that have run on them."""

from collections.abc import Sequence

from ...spec import Array, Parameters, Spec
from ..codegen.target import target
from .backward import BackwardProgram
from .blocking import PROGRAM_BYTES, ForwardPlan, plan_forward
from .buffers import Bound, BufferPool
from .forward import ForwardProgram
from .weights import Weights, Workspace, packed_bytes

PROGRAMS = Bound(PROGRAM_BYTES)


class Programs:
    """The programs of one layer that have run, by T, B and threads, and the workspace of its weights. Layers with other
    weights of the same shapes use them again."""

    def __init__(self, spec: Spec) -> None:
        self.packed_bytes = packed_bytes(spec)
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
    """Packs the parameters of one layer, a spec and a mapping a direction. previous: a layer of the same specs, whose
    programs and workspace the new one uses again."""
    programs = Programs(specs[0]) if previous is None else previous.programs
    return Layer([Weights(*one, programs.workspace) for one in zip(specs, parameters, strict=True)], programs)


def plan(layer: Layer, steps: int, batch: int, threads: int, lengths: Array | None = None) -> ForwardPlan:
    """Says how a forward pass over `batch` rows goes. lengths: of the rows, longest first."""
    packed, directions = layer.programs.packed_bytes, len(layer.directions)
    return plan_forward(layer.spec, packed, directions, steps, batch, threads, target(), lengths)
