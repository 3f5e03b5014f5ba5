"""Which of its forms a pointwise kernel takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...cells import Activations, Cells, make_cells
from ..intrinsics.activations import ACCURATE, FAST_OF_HALVES
from ..intrinsics.emission import Block
from ..intrinsics.number import Value

RESIDENT_BACK = 4  # blocks to a multiprocessor, at least, of kernels that go back: 64 registers a thread


@dataclass(frozen=True)
class Variant:
    """units: H, a constant of the kernel, so that a gate's place is an offset in an instruction and not arithmetic;
    storage: bits of an array's element; lanes: units of a thread, loaded and stored at once; ragged: rows have lengths;
    saved: the activated gates are kept for the backward pass; final: the last step, which leaves the state."""

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
    def halves(self) -> bool:
        """Whether sigma is given half its argument: `total` makes it, `Weights.pointwise_b` has its part of the bias."""
        return self.fast_math and self.storage != 64

    @property
    def activations(self) -> Activations:
        return FAST_OF_HALVES if self.halves else ACCURATE

    def total(self, sums: Sequence[Value], biases: Sequence[Value], *, sigma: bool) -> list[Value]:
        """What a gate is a function of: sigma, or tanh."""
        pairs = zip(sums, biases, strict=True)
        if sigma and self.halves:
            return [s.of.fma(s, s.of.constant(0.5), b) for s, b in pairs]
        return [s + b for s, b in pairs]

    @property
    def cells(self) -> Cells:
        return make_cells(self.activations)

    @property
    def resident(self) -> int:
        """Blocks of 256 threads to a multiprocessor, at least: all that one of 2048 threads can hold leaves 32 registers a
        thread, which is enough for inference; gates that are kept take more."""
        return 4 if self.saved else 8

    @property
    def suffix(self) -> str:
        """For a kernel's name."""
        words = [f"float{self.storage}", f"h{self.units}", f"x{self.lanes}"]
        return "_".join(words + [name for name in ("ragged", "saved", "final", "fast_math") if getattr(self, name)])
