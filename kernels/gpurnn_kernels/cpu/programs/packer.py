"""A packer lays out the parameters of one direction for one pass, with the team where there is much of them."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...spec import Array, Parameters
from ..codegen.aligned import address, aligned, aligned_zeros
from ..codegen.compile import kernel_address
from ..codegen.descriptors import PACKING_WORD, SHARE, packing_dtype
from ..products.layout import Layout
from ..products.pack import pack_backward, pack_forward, pack_strips
from ..threads.partition import cut
from ..threads.team import current_team
from .blocking import PACKING_BYTES

_SOURCE, _TO = PACKING_WORD["source"], PACKING_WORD["to"]
_KERNELS = {"forward": pack_forward, "backward": pack_backward, "strips": pack_strips}


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
    """The packed arrays of one direction for one pass, by their names in a job; their addresses; the bytes of all."""

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
        """given: names of the parameters; arrays of others are zeros. threads: the number that a call counts on."""
        self._layouts, self._dtype = layouts, dtype
        self._packed = {name: layout for name, layout in layouts.items() if layout.parameter in given}
        shared = sum(layout.size for layout in self._packed.values()) * dtype.itemsize >= PACKING_BYTES
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
        """Gives memory for the packed arrays. Elements that packing leaves as they are, and arrays of parameters that are not
        given, are zeros."""
        return {
            name: (aligned_zeros if layout.padded or name not in self._packed else aligned)(layout.size, self._dtype)
            for name, layout in self._layouts.items()
        }

    def pack(self, sources: Sources, to: Packed) -> None:
        """Packs into arrays that `allocate` gave, of this packer or another one with the same layouts."""
        for (name, layout), words in zip(self._packed.items(), self._words, strict=True):
            if layout.tail:
                _pack_tail(to.arrays[name], sources.arrays[layout.parameter], layout)
            words[_SOURCE], words[_TO] = sources.addresses[layout.parameter], to.addresses[name]
        current_team.team.run(self._threads, self._shares, self._starts)


def _pack_tail(to: Array, source: Array, layout: Layout) -> None:
    """Packs the units that are left over, in the matrix's own order of gates."""
    by_gate = source.reshape(-1, layout.hidden_size, layout.columns)[:, layout.units :]
    tail = by_gate.reshape(-1, layout.columns)
    at = layout.vectors * layout.lanes * layout.columns
    to[at:].reshape(layout.columns, -1)[:, : len(tail)] = tail.T
