"""Weights in the order in which the tiles stream them.

Forward, a matrix (gates * H, K) becomes vectors of units, block of units by block, all gates of a block side by side;
`width` of them to a panel: [panel][k][vector][lane], the last panel as narrow as it is. Lanes past H
are zeros. Backward, vectors are of its K columns, and panels run over its rows; or its columns become strips of AMX tiles.

The units that are left over after whole vectors (4 of 100) would waste most of their lanes. Where that takes fewer vectors,
their gates share vectors instead: [k][gate][unit], without padding in between. The kernels spread them afterwards.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ...spec import Array, Parameters
from ..codegen.aligned import address, aligned, aligned_zeros
from ..codegen.compile import kernel_address
from ..codegen.descriptors import PACKING_WORD, SHARE, packing_dtype
from ..threads.partition import cut
from ..threads.team import current_team
from .amx.instructions import BLOCK
from .amx.strips import blocks_in, strips_in
from .pack import pack_backward, pack_forward, pack_strips

_SOURCE, _TO = PACKING_WORD["source"], PACKING_WORD["to"]
Order = Literal["forward", "backward", "strips"]
_KERNELS = {"forward": pack_forward, "backward": pack_backward, "strips": pack_strips}
TAIL_WIDTHS = (1, 2)  # vectors that gates may share: each width is a tile of its own to compile
_SHARED_BYTES = 1 << 20  # of packed arrays, that threads share out: less takes no longer than they would to meet


def tail_vectors(gates: int, hidden_size: int, lanes: int) -> int:
    """Vectors that the gates of the left-over units share; 0 where each gate has vectors of its own."""
    needed = -(-gates * (hidden_size % lanes) // lanes)
    return needed if needed in TAIL_WIDTHS and needed < gates else 0


@dataclass(frozen=True)
class Layout:
    """The order of one packed array."""

    parameter: str  # that it is of: (all gates * H, K), or a bias, with K = 1
    gates: tuple[int, ...]  # of it, in this order
    hidden_size: int  # rows of a gate
    columns: int  # K
    lanes: int
    width: int  # vectors of a panel
    tail: int = 0  # vectors that the gates of the left-over units share
    order: Order = "forward"

    @property
    def units(self) -> int:
        """Of each gate that fill vectors of their own."""
        return self.hidden_size // self.lanes * self.lanes if self.tail else self.hidden_size

    @property
    def vectors(self) -> int:
        """Of units, all gates'."""
        return -(-self.units // self.lanes) * len(self.gates)

    @property
    def pieces(self) -> int:
        """That threads share out: blocks of strips, or vectors."""
        return blocks_in(self.vectors) if self.order == "strips" else self.vectors

    @property
    def size(self) -> int:
        """Elements of the array."""
        if self.order == "strips":
            return strips_in(self.columns) * blocks_in(self.vectors) * BLOCK // 4
        columns = -(-self.columns // self.lanes) * self.lanes if self.order == "backward" else self.columns
        return (self.vectors + self.tail) * self.lanes * columns

    @property
    def padded(self) -> bool:
        """With elements that the kernels leave as they are, and that must be zeros."""
        if self.order == "strips":
            return False
        return self.hidden_size % self.lanes > 0 or (self.order == "backward" and self.columns % self.lanes > 0)


class Sources(NamedTuple):
    """Parameters without gaps, and their addresses."""

    arrays: dict[str, Array]
    addresses: dict[str, int]

    @staticmethod
    def of(parameters: Parameters) -> "Sources":
        arrays = {name: np.ascontiguousarray(array) for name, array in parameters.items()}
        # read-only arrays, which `address` is slow for
        return Sources(arrays, {name: array.__array_interface__["data"][0] for name, array in arrays.items()})


class Packed(NamedTuple):
    """The packed arrays of one direction for one pass, by their names in a job, their addresses and bytes."""

    arrays: dict[str, Array]
    addresses: dict[str, int]
    bytes: int

    @staticmethod
    def of(arrays: dict[str, Array]) -> "Packed":
        addresses = {name: address(array) for name, array in arrays.items()}
        return Packed(arrays, addresses, sum(array.nbytes for array in arrays.values()))


class Packer:
    """Packs the parameters of one direction for one pass, as often as they change. For one caller at a time."""

    def __init__(self, layouts: Mapping[str, Layout], given: Collection[str], dtype: np.dtype[Any], threads: int) -> None:
        """given: names of the parameters; arrays of others are zeros. threads: that a call counts on."""
        self._layouts, self._dtype = layouts, dtype
        self._packed = {name: layout for name, layout in layouts.items() if layout.parameter in given}
        shared = sum(layout.size for layout in self._packed.values()) * dtype.itemsize >= _SHARED_BYTES
        self._threads = threads if shared else 1
        count = len(self._packed)
        self._records = np.zeros(count, packing_dtype(dtype.name))
        self._shares = aligned_zeros(count * self._threads * SHARE.itemsize, np.dtype(np.uint8)).view(SHARE)
        self._starts = np.arange(self._threads + 1, dtype=np.int64) * count
        self._words: list[Any] = [one.data for one in self._records.view(np.int64).reshape(count, -1)]
        self._held: list[Array] = []
        for index, layout in enumerate(self._packed.values()):
            self._describe(self._words[index], layout)
            self._share_out(index, layout)

    def _describe(self, words: Any, layout: Layout) -> None:
        gates = np.array(layout.gates, np.int64)
        self._held.append(gates)
        sizes = {
            **{"H": layout.hidden_size, "columns": layout.columns, "item": self._dtype.itemsize},
            **{"gates": address(gates), "gates_n": len(gates)},
            **{"units": layout.units, "lanes": layout.lanes, "width": layout.width},
        }
        for name, value in sizes.items():
            words[PACKING_WORD[name]] = value

    def _share_out(self, index: int, layout: Layout) -> None:
        bounds = cut(layout.pieces, self._threads)
        for p in range(self._threads):
            share = self._shares[p * len(self._records) + index]
            share["job"] = self._records.ctypes.data + index * self._records.itemsize
            share["kernel"] = kernel_address(_KERNELS[layout.order], self._dtype.name)
            share["panel_begin"], share["panel_end"] = bounds[p], bounds[p + 1]

    def allocate(self) -> dict[str, Array]:
        """Memory for the packed arrays: what packing leaves as it is, and all of those that no parameter fills, is zeros."""
        return {
            name: (aligned_zeros if layout.padded or name not in self._packed else aligned)(layout.size, self._dtype)
            for name, layout in self._layouts.items()
        }

    def pack(self, sources: Sources, to: Packed) -> None:
        """Into arrays that `allocate` gave, to this or another packer of the same layouts."""
        for (name, layout), words in zip(self._packed.items(), self._words, strict=True):
            if layout.tail:
                _pack_tail(to.arrays[name], sources.arrays[layout.parameter], layout)
            words[_SOURCE], words[_TO] = sources.addresses[layout.parameter], to.addresses[name]
        current_team.team.run(self._threads, self._shares, self._starts)


def _pack_tail(to: Array, source: Array, layout: Layout) -> None:
    """The units that are left over, in the matrix's own order of gates."""
    by_gate = source.reshape(-1, layout.hidden_size, layout.columns)[:, layout.units :]
    tail = by_gate.reshape(-1, layout.columns)
    at = layout.vectors * layout.lanes * layout.columns
    to[at:].reshape(layout.columns, -1)[:, : len(tail)] = tail.T
