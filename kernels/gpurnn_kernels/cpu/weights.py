"""The parameters of one direction of one layer, packed for the tiles. Packed once, shared by every call."""

import sys
from functools import cached_property

import numpy as np

from ..spec import Array, Parameters, Spec
from .activations import SIGMOID_SCALE, TANH_SCALE
from .backward import BACK
from .packing import narrow_vectors, pack_bias, pack_gates, pack_narrow, pack_transposed
from .shelf import Arrays
from .target import target
from .tiles import WIDTHS


class Weights:
    """Packed weights. `forward` and `backward` name them as a job's fields do; the backward ones are made at first use."""

    def __init__(self, spec: Spec, parameters: Parameters, arrays: Arrays) -> None:
        """arrays: where the packed ones come from, and go back to."""
        self.spec = spec
        self.parameters = parameters
        self.lanes = target().lanes(spec.dtype.itemsize)
        self._arrays = arrays

    def __del__(self) -> None:
        if not sys.is_finalizing():
            packed = [array for name in ("forward", "backward", "_options") for array in self.__dict__.get(name, {}).values()]
            self._arrays.returned(*{id(array): array for array in packed}.values())

    @cached_property
    def narrow(self) -> int:
        """Vectors that the gates of the left-over units share; 0 for none, and for kernels that do not know of it."""
        spec = self.spec
        known = spec.variant == spec.cell != "gru_before"
        return narrow_vectors(spec.gates, spec.hidden_size, self.lanes) if known else 0

    @cached_property
    def wide(self) -> int:
        """Vectors of a wide panel."""
        return target().wide(self.spec.output_size)

    @cached_property
    def factors(self) -> Array | None:
        """By gate, what pre-activations are scaled by: see `activations.py`. None for kernels that take them as they are."""
        spec = self.spec
        if spec.variant != spec.cell:
            return None
        return np.array([SIGMOID_SCALE] * (spec.gates - 1) + [TANH_SCALE], spec.dtype)

    def _gates(self, name: str, gates: tuple[int, ...], width: int) -> Array:
        given = self.parameters[name], gates, self.spec.hidden_size, self.lanes, width
        if self.narrow:
            return pack_narrow(*given, self.narrow, self.factors, self._arrays)
        return pack_gates(*given, self.factors, self._arrays)

    def _bias(self, name: str, gates: tuple[int, ...]) -> Array:
        spec, bias = self.spec, self.parameters.get(name)
        if self.narrow and bias is not None and len(gates) == spec.gates:
            return pack_narrow(bias[:, None], gates, spec.hidden_size, self.lanes, 1, self.narrow, self.factors, self._arrays)
        factors = self.factors[-1:] if name == "b_hn" and self.factors is not None else self.factors
        return pack_bias(bias, gates, spec.hidden_size, self.lanes, spec.dtype, factors, self._arrays)

    def _transposed(self, name: str, gates: tuple[int, ...]) -> Array:
        return pack_transposed(self.parameters[name], gates, self.spec.hidden_size, self.lanes, BACK, self._arrays)

    @cached_property
    def _options(self) -> dict[str, Array]:
        """What the layers with options have besides, the same in both passes."""
        if self.spec.variant == self.spec.cell:
            return {}
        limit = self._arrays.borrowed(self.lanes, self.spec.dtype)
        limit[:] = np.inf if self.spec.clip is None else self.spec.clip
        found = {"limit": limit, "zeros": self._arrays.borrowed_zeros(BACK * self.lanes, self.spec.dtype)}
        return found | ({"peephole": self._bias("peephole", (0, 1, 2))} if self.spec.peepholes else {})

    def _projection(self) -> dict[str, Array]:
        if not self.spec.proj_size:
            return {}
        return {"w_p": pack_gates(self.parameters["W_p"], (0,), self.spec.proj_size, self.lanes, BACK, arrays=self._arrays)}

    def _projection_back(self) -> dict[str, Array]:
        if not self.spec.proj_size:
            return {}
        W_p = self.parameters["W_p"]
        return {"w_p": pack_transposed(W_p, (0,), self.spec.proj_size, self.lanes, BACK, self._arrays)}

    @cached_property
    def forward(self) -> dict[str, Array]:
        return self._cell() | self._options | self._projection()

    def _cell(self) -> dict[str, Array]:
        """Of the forward pass, what every layer of this cell has."""
        if self.spec.cell == "lstm":
            every = (0, 1, 2, 3)
            return {
                "w_x": self._gates("W_x", every, self.wide),
                "w_h": self._gates("W_h", every, self.wide),
                "b": self._bias("b", every),
            }
        if self.spec.cell == "gru_after":
            # the slots of a step are n_x z r q: W_x makes the first three, W_h the last three
            return {
                "w_x": self._gates("W_x", (2, 0, 1), 3),
                "w_h": self._gates("W_h", (0, 1, 2), 3),
                "b": self._bias("b", (2, 0, 1)),
                "b_n": self._bias("b_hn", (0,)),
            }
        return {
            "w_x": self._gates("W_x", (0, 1), self.wide),
            "w_x_n": self._gates("W_x", (2,), 2),
            "w_h": self._gates("W_h", (0, 1), self.wide),
            "w_h_n": self._gates("W_h", (2,), 2),
            "b": self._bias("b", (0, 1)),
            "b_n": self._bias("b", (2,)),
        }

    @cached_property
    def forward_addresses(self) -> dict[str, int]:
        return {name: array.ctypes.data for name, array in self.forward.items()}

    @cached_property
    def backward(self) -> dict[str, Array]:
        return self._cell_back() | self._options | self._projection_back()

    @cached_property
    def backward_addresses(self) -> dict[str, int]:
        return {name: array.ctypes.data for name, array in self.backward.items()}

    def _cell_back(self) -> dict[str, Array]:
        every = tuple(range(self.spec.gates))
        # what the sums of a panel of any width start from
        zeros = {"b": self._arrays.borrowed_zeros(max(WIDTHS) * self.lanes, self.spec.dtype)}
        if self.spec.cell == "gru_before":
            return zeros | {
                "w_x": self._transposed("W_x", every),
                "w_h": self._transposed("W_h", (0, 1)),
                "w_h_n": self._transposed("W_h", (2,)),
            }
        return zeros | {"w_x": self._transposed("W_x", every), "w_h": self._transposed("W_h", every)}
