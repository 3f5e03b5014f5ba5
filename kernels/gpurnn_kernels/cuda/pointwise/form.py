"""The forms of a pointwise kernel, and the device functions that each form is made of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from ...cells import Activations, Cells, Number
from ..block import THREADS, Block, standing
from ..compiler import types
from ..host.device import Kernel
from ..intrinsics.activations import ACCURATE, FAST_OF_HALVES
from ..intrinsics.lanes import lanes_of
from ..intrinsics.traced import traced, traced_activations, traced_cells
from ..records import record_type

RESIDENT_BACK = 4  # blocks to a multiprocessor, at least, of kernels that go back: 64 registers a thread


@dataclass(frozen=True)
class Variant:
    """A form of the kernels.

    units: H, a constant of the kernel, so that a gate's place is an offset in an instruction and not arithmetic;
    storage: bits of an element of the layer's dtype; lanes: units of a thread, loaded and stored at once;
    ragged: rows have lengths; saved: the activated gates are kept for the backward pass;
    final: the last step, which leaves the state.
    """

    units: int
    storage: int
    lanes: int = 1
    ragged: bool = False
    saved: bool = False
    final: bool = False
    fast_math: bool = False

    def at_end(self) -> "Variant":
        return replace(self, final=True)

    @property
    def block(self) -> Block:
        return Block.over(self.units, self.lanes)

    @property
    def parts(self) -> "Parts":
        bits = max(self.storage, 32)
        return Parts(*standing(self.block, self.units), *lanes_of(self.lanes, bits), *_equations(self.halves))

    @property
    def resident(self) -> int:
        """Blocks to a multiprocessor, at least.

        As many as one of 2048 threads can hold leave 32 registers a thread, which is enough for inference; gates that are
        kept take more.
        """
        if self.saved:
            return 5 if self.halves else 4
        return 8

    @property
    def resident_doubles(self) -> int:
        """Blocks to a multiprocessor of the kernels whose doubles 32 registers do not hold."""
        return min(self.resident, 6) if self.storage == 64 else self.resident

    @property
    def halves(self) -> bool:
        """Tells whether sigma is given half its argument; `Weights.pointwise_b` has its part of the bias."""
        return self.fast_math and self.storage != 64

    @property
    def suffix(self) -> str:
        """The end of a kernel's name."""
        words = [f"float{self.storage}", f"h{self.units}", f"x{self.lanes}"]
        return "_".join(words + [name for name in ("ragged", "saved", "final", "fast_math") if getattr(self, name)])

    def kernel(self, name: str, function: Callable[..., None], record: Any, resident: int) -> Kernel:
        """Makes a kernel of function(record, t)."""
        signature = (record_type(record, self.storage), types.int32)
        return Kernel(f"{name}_{self.suffix}", function, signature, THREADS, resident)


class Parts(NamedTuple):
    """The device functions that kernels of a form call, on vectors of its lanes."""

    place: Any  # () -> this thread's row, the first of its units
    inside: Any  # row, unit, batch -> whether they exist
    load: Any  # pointer, index -> vector
    store: Any  # pointer, index, vector
    zeros: Any  # () -> vector
    cells: Cells
    activations: Activations
    of_sigma: Any  # products and, last, a bias -> what sigma is a function of
    add: Any  # vectors -> their sum; also what tanh is a function of


@cache
def _equations(halves: bool) -> tuple[Any, ...]:
    """Makes the equations device functions; halves: see `Variant.halves`."""
    activations = FAST_OF_HALVES if halves else ACCURATE
    add = traced(_total, "add")
    of_sigma = traced(_half_total, "of_sigma") if halves else add
    return traced_cells(activations), traced_activations(activations), of_sigma, add


def _total(*terms: Number) -> Number:
    first, *others = terms
    for other in others:
        first = first + other
    return first


def _half_total(*terms: Number) -> Number:
    *products, bias = terms
    sum_ = _total(*products)
    return sum_.of.fma(sum_, sum_.of.constant(0.5), bias)
