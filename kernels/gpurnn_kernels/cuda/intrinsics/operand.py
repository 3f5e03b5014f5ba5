"""The types of the factors of a persistent kernel's products: W_h, held in registers, and h or r * h, which blocks exchange.

All sums are float32. A float16 layer's products run on tensor cores, a float32 layer's where precision="tf32" asks for it.
"""

from dataclasses import dataclass
from typing import Literal

from ...spec import Spec
from ..host.device import Limits


@dataclass(frozen=True)
class Operand:
    name: Literal["float32", "tf32", "float16"]
    item: int  # bytes of an element of W_h, h and y, in global as in shared memory
    depth: int = 0  # k of an instruction of the tensor cores; 0: multiply-adds

    @property
    def tensor(self) -> bool:
        return self.depth > 0

    @property
    def per_word(self) -> int:
        """Elements in 32 bits."""
        return 4 // self.item


FLOAT32 = Operand("float32", 4)
TF32 = Operand("tf32", 4, 8)
FLOAT16 = Operand("float16", 2, 16)
FLOAT16_7 = Operand("float16", 2, 8)  # compute capability 7.5 has half the instruction


def operand_of(spec: Spec, limits: Limits) -> Operand:
    if spec.dtype == "float16":
        return FLOAT16 if limits.compute_capability >= (8, 0) else FLOAT16_7
    return TF32 if spec.precision == "tf32" else FLOAT32
