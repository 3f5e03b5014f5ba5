"""A device's global memory, and the shared memory of a launch: who may access what, and what has been written.

An address on the device is the host's own address of the byte, so that slices and views need no bookkeeping.
"""

import bisect
import weakref
from typing import Any

import numpy as np

from .errors import PTXError

ALIGNMENT = 256  # bytes, as cudaMalloc's; also the gap between allocations, which catches an index that is off by a few


class Region:
    """Consecutive bytes with a flag a granule: what has been written.

    granule: bytes, the smallest that one access touches. complete: all flags are set, for certain.
    """

    __slots__ = ("__weakref__", "base", "complete", "data", "end", "flags", "granule", "name")

    def __init__(self, data: Any, base: int, size: int, granule: int, initialised: bool, name: str) -> None:
        self.data, self.base, self.end, self.granule, self.name = data, base, base + size, granule, name
        self.flags = np.full(data.size // granule, initialised, np.uint8)
        self.complete = initialised

    def rows(self, array: Any, size: int) -> Any:
        """One entry a granule -> one row an access of `size` bytes."""
        return array.reshape(-1, size // self.granule) if size > self.granule else array

    def settle(self) -> None:
        """Looks whether all has been written meanwhile."""
        self.complete = self.complete or bool(self.flags[: -(-(self.end - self.base) // self.granule)].all())


class EmulatedArray(np.ndarray[Any, Any]):
    """An array on the emulated device. What the host writes through it counts as initialised.

    home: its `EmulatedDevice`, absent in arrays that NumPy made of it, which are the host's.
    """

    home: Any

    def __array_finalize__(self, parent: Any) -> None:
        self.home = getattr(parent, "home", None)

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.home is not None:
            self.home.require_current("an assignment to an array")
        np.ndarray.__setitem__(self.view(np.ndarray), key, np.asarray(value))
        if self.size:
            flags = self.home.memory.flags_of(self)
            flags[key if flags.shape == self.shape else ...] = True

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        """On the host's copy; a result goes to the device."""
        plain = [x.view(np.ndarray) if isinstance(x, EmulatedArray) else x for x in inputs]
        device = next(x.home for x in (*inputs, *(out or ())) if isinstance(x, EmulatedArray))
        if device is not None:
            device.require_current("arithmetic on an array")
        if out is not None:
            into = tuple(x.view(np.ndarray) if isinstance(x, EmulatedArray) else x for x in out)
            getattr(ufunc, method)(*plain, out=into, **options)
            for x in out:
                if isinstance(x, EmulatedArray) and x.size:
                    device.memory.flags_of(x)[...] = True
            return out[0] if len(out) == 1 else out
        result = getattr(ufunc, method)(*plain, **options)
        return device.upload(result) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        """Puts what NumPy's functions make of arrays on a device there too, like CuPy."""
        result = super().__array_function__(function, types, arguments, options)
        return self.home.upload(result) if type(result) is np.ndarray and self.home is not None else result

    def copy(self, order: Any = "C") -> Any:
        """With what is not initialised left so."""
        self.home.require_current("a copy of an array")
        result = self.home.empty(self.shape, self.dtype)
        result.view(np.ndarray)[...] = self.view(np.ndarray)
        if self.size:
            self.home.memory.flags_of(result)[...] = self.home.memory.flags_of(self)
        return result

    def fill(self, value: Any) -> None:
        self[...] = value


class GlobalMemory:
    """Live allocations, sorted by address."""

    def __init__(self) -> None:
        self._bases: list[int] = []
        self._regions: list[Region] = []

    def allocate(self, shape: tuple[int, ...], dtype: Any, device: Any, initialised: bool) -> EmulatedArray:
        """Not initialised: all bits set, which is NaN."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        room = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        buffer = np.full(room + 2 * ALIGNMENT, 0xFF, np.uint8)
        skipped = -buffer.__array_interface__["data"][0] % ALIGNMENT
        data = buffer[skipped : skipped + room]
        base = data.__array_interface__["data"][0]
        owner = data[:size].view(EmulatedArray)  # the base of all views
        owner.home = device
        region = Region(data, base, size, min(8, dtype.itemsize), initialised, f"{shape} {dtype}")
        position = bisect.bisect(self._bases, base)
        self._bases.insert(position, base)
        self._regions.insert(position, region)
        weakref.finalize(owner, self._free, base).atexit = False
        array: EmulatedArray = owner.view(dtype).reshape(shape)
        return array

    def _free(self, base: int) -> None:
        position = bisect.bisect_left(self._bases, base)
        del self._regions[position], self._bases[position]

    def region_at(self, address: int) -> Region | None:
        """The allocation that begins there or before, if it has not ended."""
        position = bisect.bisect_right(self._bases, address) - 1
        if position < 0 or address >= self._regions[position].end:
            return None
        return self._regions[position]

    def split(self, address: Any, size: int) -> list[tuple[Region, Any]]:
        """The regions of accesses (n,), each with the positions that lie in it; None for all."""
        low, high = int(address.min()), int(address.max()) + size
        region = self.region_at(low)
        if region is not None and high <= region.end:
            return [(region, None)]
        found: dict[int, list[int]] = {}
        for k, a in enumerate(address.tolist()):
            one = self.region_at(a)
            if one is None or a + size > one.end:
                raise PTXError(self._outside(a, size, one))
            found.setdefault(one.base, []).append(k)
        return [(self._regions[bisect.bisect_left(self._bases, base)], np.array(where)) for base, where in found.items()]

    def _outside(self, address: int, size: int, region: Region | None) -> str:
        position = bisect.bisect_right(self._bases, address) - 1
        if region is None and position >= 0:
            region = self._regions[position]
        near = "no allocation is near" if region is None else f"byte {address - region.base} of array {region.name}"
        return f"out of bounds: {size} bytes at {near}"

    def flags_of(self, array: EmulatedArray) -> Any:
        """The flags of an array's elements, in its shape; one after the other if it is viewed with another size of element."""
        address = self.address(array)
        region = self.region_at(address)
        assert region is not None
        if array.itemsize != region.granule:
            low, high = np.lib.array_utils.byte_bounds(array)
            return region.flags[(low - region.base) // region.granule : -(-(high - region.base) // region.granule)]
        strides = tuple(s // region.granule for s in array.strides)
        first = region.flags[(address - region.base) // region.granule :]
        return np.lib.stride_tricks.as_strided(first, array.shape, strides)

    def address(self, array: EmulatedArray) -> int:
        """The address of its first element. ValueError: the array is not on the device, or was freed."""
        address: int = array.__array_interface__["data"][0]
        if array.size and self.region_at(address) is None:
            raise ValueError(f"an array of shape {array.shape} that is not in the device's memory")
        return address
