"""The parameters of one direction of one layer, packed for the tiles. Packed once, shared by every call."""

import sys
from collections.abc import Callable

import numpy as np

from ...spec import WEIGHTS, Array, Parameters, Spec
from ..cells import cell_of
from ..codegen.aligned import aligned_zeros
from ..codegen.target import target
from ..products.formats import format_of
from ..products.gemm import NR_BACK
from ..products.layout import Layout, Order, tail_vectors
from ..products.microkernel import WIDTHS
from .blocking import PACKED_BYTES, PACKERS, Products
from .buffers import Bound, BufferPool
from .packer import Packed, Packer, Sources

_PACKED, _PACKERS = Bound(PACKED_BYTES), Bound(PACKERS)


class Workspace:
    """Memory that the weights of one layer pass on to the next ones: packed arrays by pass, packers by pass and threads."""

    def __init__(self) -> None:
        self.packed: BufferPool[Packed] = BufferPool(_PACKED, lambda packed: packed.bytes)
        self.packers: BufferPool[Packer] = BufferPool(_PACKERS, lambda packer: 1)


class Weights:
    """The packed weights of both passes, made at first use, by the names of a job's fields."""

    def __init__(self, spec: Spec, parameters: Parameters, workspace: Workspace) -> None:
        self.spec = spec
        self.parameters = parameters
        self._workspace = workspace
        self._passes: dict[Products | None, Packed] = {}

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends():
            passes = getattr(self, "_passes", {})  # a constructor that failed left none
            for backward, packed in passes.items():
                self._workspace.packed.give(backward, packed)

    def forward(self, threads: int = 1) -> Packed:
        """threads: the number that a call counts on."""
        return self._of(None, threads)

    def backward(self, products: Products, threads: int = 1) -> Packed:
        return self._of(products, threads)

    def _of(self, backward: Products | None, threads: int) -> Packed:
        found = self._passes.get(backward)
        # two threads that come first both pack, one of them in vain
        return self._passes.setdefault(backward, self._pack(backward, threads)) if found is None else found

    def _pack(self, backward: Products | None, threads: int) -> Packed:
        spec, workspace, key = self.spec, self._workspace, (backward, threads)
        packer = workspace.packers.take(key)
        if packer is None:
            layouts = _forward_layouts(spec) if backward is None else _backward_layouts(spec, backward)
            packer = Packer(layouts, self.parameters, spec.dtype, threads)
        packed = workspace.packed.take(backward)
        if packed is None:
            packed = Packed.of(packer.allocate() | _constants(spec, backward is not None))
        packer.pack(self._sources(backward is None), packed)
        workspace.packers.give(key, packer)
        return packed

    def _sources(self, forward: bool) -> Sources:
        """Gives the parameters as the packer reads them: forward, the weights of products in the layer's format."""
        encoded = format_of(self.spec).encoded
        return Sources.of({name: encoded(a) if forward and name in WEIGHTS else a for name, a in self.parameters.items()})


def _constants(spec: Spec, backward: bool) -> dict[str, Array]:
    """Makes the arrays that kernels read besides: zeros, and a vector of the clip."""
    found, lanes = {}, target().lanes(spec.dtype.itemsize)
    if backward:
        # the sums of a panel of any width start from these
        found["b"] = aligned_zeros(max(WIDTHS) * lanes, spec.dtype)
    if spec.has_options:
        limit = aligned_zeros(lanes, spec.dtype)
        with np.errstate(all="ignore"):  # a clip may be too small or too large for the dtype
            limit[:] = np.inf if spec.clip is None else spec.clip
        found |= {"limit": limit, "zeros": aligned_zeros(NR_BACK * lanes, spec.dtype)}
    return found


def wide_vectors(spec: Spec) -> int:
    """Gives the vectors of a wide panel."""
    format = format_of(spec)
    return format.wide(format.depth(spec.output_size), target())


def tail_vectors_of(spec: Spec) -> int:
    """Gives the vectors that the gates of the left-over units share; 0 for none, and for kernels that cannot."""
    known = cell_of(spec).shares_vectors and not spec.has_options
    return tail_vectors(spec.gates, spec.hidden_size, target().lanes(spec.dtype.itemsize)) if known else 0


def panel_widths(spec: Spec) -> tuple[int, ...]:
    """Gives the widths of the panels that the products of the forward pass read."""
    layouts = [layout for layout in _forward_layouts(spec).values() if layout.parameter in WEIGHTS]
    found = {width for layout in layouts for width in (layout.width, layout.vectors % layout.width, layout.tail)}
    return tuple(sorted(found - {0}))


def packed_bytes(spec: Spec) -> dict[str, int]:
    """Gives the bytes of each packed array of the forward pass, by its name in a job."""
    return {name: layout.size * spec.dtype.itemsize for name, layout in _forward_layouts(spec).items()}


def _forward_layouts(spec: Spec) -> dict[str, Layout]:
    lanes, wide, tail = target().lanes(spec.dtype.itemsize), wide_vectors(spec), tail_vectors_of(spec)
    columns = format_of(spec).columns

    def of(parameter: str, gates: tuple[int, ...], columns: int, width: int) -> Layout:
        return Layout(parameter, gates, spec.hidden_size, columns, lanes, width, tail)

    cell, found = cell_of(spec), {}
    for one in cell.products:
        found[f"w_x{one.suffix}"] = of("W_x", one.x_gates, columns(spec.input_size), one.width(wide))
        found[f"w_h{one.suffix}"] = of("W_h", one.h_gates, columns(spec.output_size), one.width(wide))
        found[f"b{one.suffix}"] = of("b", one.x_gates, 1, 1)
    for name, parameter in cell.biases:
        found[name] = Layout(parameter, (0,), spec.hidden_size, 1, lanes, 1)
    if spec.peepholes:
        found["peephole"] = of("peephole", (0, 1, 2), 1, 1)
    if spec.proj_size:
        found["w_p"] = Layout("W_p", (0,), spec.proj_size, columns(spec.hidden_size), lanes, NR_BACK)
    return found


def _backward_layouts(spec: Spec, products: Products) -> dict[str, Layout]:
    lanes = target().lanes(spec.dtype.itemsize)

    def of(parameter: str, gates: tuple[int, ...], columns: int, strips: bool) -> Layout:
        order: Order = "strips" if strips else "backward"
        return Layout(parameter, gates, spec.hidden_size, columns, lanes, NR_BACK, order=order)

    every = tuple(range(spec.gates))
    found = {"w_x": of("W_x", every, spec.input_size, products.large)}
    for one in cell_of(spec).products:
        found[f"w_h{one.suffix}"] = of("W_h", one.h_gates, spec.output_size, products.recurrent)
    if spec.peepholes:
        found["peephole"] = _forward_layouts(spec)["peephole"]
    if spec.proj_size:
        found["w_p"] = Layout("W_p", (0,), spec.proj_size, spec.hidden_size, lanes, NR_BACK, order="backward")
    return found
