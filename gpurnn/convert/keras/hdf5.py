"""A reader of HDF5 files that refuses links and takes its bounds from the file's size.

An HDF5 file can name the same bytes any number of times: objects by hard links, texts by references into a heap, chunks by
addresses. Sizes that it claims are therefore compared with the size of the file itself, and what is made of it is summed.
"""

from __future__ import annotations

import io
import math
import mmap
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

GROWTH = 16  # times the file's size is what may be made of it: trained weights do not shrink as far
SPARE = 128 << 20  # bytes that any file may make beyond that: short names stand in a heap beside a model's long text
VISITS = 100_000  # objects and names looked at; a model with more is none
CHUNKS = 10_000  # of one packed dataset
DEFLATE = 1
FILTERS = {DEFLATE: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # others believe sizes that the file claims
CHECKSUMS = 64  # bytes that other filters may add to a chunk
HEAP = b"GCOL\x01\0\0\0"  # the start of a collection of texts; its size follows


class Reader:
    """An open HDF5 file."""

    def __init__(self, root: Any, data: Path | io.BytesIO, size: int) -> None:
        self.root = root
        self._data, self._size = data, size
        self._visits = self._texts = self._numbers = 0
        self._largest: int | None = None

    def has(self, group: Any, name: str) -> bool:
        """Tells whether a group has a link of that name, which is not followed."""
        return bool(group.id.links.exists(name.encode()))

    def child(self, group: Any, path: str) -> Any:
        """Gives the object at a path. Raises ValueError where it is missing or a link leads there."""
        import h5py

        self._visit(1)
        at = group
        # a component may hold a backslash of its own: paths of Windows
        for part in [one for one in path.split("/") if one]:
            if not isinstance(at, h5py.Group) or not self.has(at, part):
                raise ValueError(f"{_short(path)} is missing")
            if at.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"{_short(path)} is a link; only what lies in the file itself is read")
            at = at[part]
        return at

    def texts(self, thing: Any, name: str) -> list[str]:
        """Gives the texts of an attribute; none where it is missing or empty."""
        import h5py

        if name not in thing.attrs:
            return []
        attribute = thing.attrs.get_id(name)
        count = int(attribute.get_space().get_simple_extent_npoints())
        if not count:
            return []
        form = h5py.check_string_dtype(attribute.dtype)
        if form is None:
            raise ValueError(f"{thing.name}: the attribute {name!r}: expected text, got {attribute.dtype}")
        self._visit(count)
        # one text is no longer than its heap; many may be the same one
        longest = form.length or (self._size if count == 1 else self._largest_heap(count))
        self._check_texts(count * longest, name)
        found = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in np.ravel(thing.attrs[name])]
        self._texts += sum(map(len, found))
        self._check_texts(self._texts, name)
        return found

    def text(self, thing: Any, name: str) -> str | None:
        """Gives the first text of an attribute."""
        return next(iter(self.texts(thing, name)), None)

    def number(self, thing: Any, name: str) -> int | None:
        """Gives an attribute that is one integer; None where it is missing."""
        if name not in thing.attrs:
            return None
        attribute = thing.attrs.get_id(name)
        if attribute.shape not in ((), (1,)) or attribute.dtype.kind not in "iu":
            raise ValueError(f"{thing.name}: the attribute {name!r}: expected one integer")
        return int(np.ravel(thing.attrs[name])[0])

    def array(self, dataset: Any) -> Array:
        """Gives a dataset's floating-point numbers, once it is certain that the file holds them."""
        if dataset.dtype.kind != "f":
            raise ValueError(f"{dataset.name}: expected floating-point numbers, got {dataset.dtype}")
        if dataset.external is not None or dataset.is_virtual:
            raise ValueError(f"{dataset.name}: its numbers lie in other files; only what lies in the file itself is read")
        held = min(dataset.id.get_storage_size(), self._size)
        self._numbers += dataset.nbytes
        if dataset.nbytes > GROWTH * held:
            raise ValueError(f"{dataset.name}: it claims {dataset.nbytes} bytes, the file holds {held}")
        if self._numbers > GROWTH * self._size:
            raise ValueError(f"{dataset.name}: with it, more than {GROWTH} times the file's {self._size} bytes are claimed")
        _check_chunks(dataset, self._size)
        return np.asarray(dataset[()]).astype(dataset.dtype.newbyteorder("="))

    def _visit(self, count: int) -> None:
        self._visits += count
        if self._visits > VISITS:
            raise ValueError(f"more than {VISITS} objects and names")

    def _check_texts(self, size: int, name: str) -> None:
        if size > SPARE + GROWTH * self._size:
            raise ValueError(f"the attribute {name!r} may claim {size} bytes of text, in a file of {self._size} bytes")

    def _largest_heap(self, count: int) -> int:
        """Gives a bound on a text's length, the size of the largest collection of texts, found without reading any."""
        if count * self._size <= SPARE + GROWTH * self._size:
            return self._size
        if self._largest is None:
            with _bytes(self._data) as data:
                self._largest = max(_heaps(data), default=0)
        return self._largest


@contextmanager
def opened(source: Path, data: Path | io.BytesIO) -> Iterator[Reader]:
    """Opens the file `source`, or `data` out of it. Raises ValueError for what is no HDF5 file."""
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{source}: reading HDF5 needs h5py: pip install h5py") from None
    try:
        file = h5py.File(data, "r")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{source}: not an HDF5 file, or damaged: {error}") from None
    with file:
        yield Reader(file, data, source.stat().st_size)


@contextmanager
def _bytes(data: Path | io.BytesIO) -> Iterator[Any]:
    if isinstance(data, io.BytesIO):
        yield data.getvalue()
        return
    with data.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _heaps(data: Any) -> Iterator[int]:
    """Gives the sizes of all collections of texts."""
    at = data.find(HEAP)
    while at >= 0:
        claimed = int.from_bytes(data[at + len(HEAP) : at + len(HEAP) + 8], "little")
        yield min(claimed, len(data) - at)
        at = data.find(HEAP, at + len(HEAP))


def _check_chunks(dataset: Any, size: int) -> None:
    """Raises ValueError where packed chunks unpack to more than a chunk holds: HDF5 would unpack all there is."""
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    if not filters:
        return
    if len(set(filters)) != len(filters) or not FILTERS.keys() >= set(filters):
        raise ValueError(
            f"{dataset.name}: packed by filters {filters}; each of {', '.join(FILTERS.values())} is unpacked, once"
        )
    count, whole = dataset.id.get_num_chunks(), dataset.dtype.itemsize * math.prod(dataset.chunks)
    if count > CHUNKS or whole > SPARE + GROWTH * size:
        raise ValueError(f"{dataset.name}: {count} chunks of {whole} bytes, in a file of {size} bytes")
    infos = [dataset.id.get_chunk_info(index) for index in range(count)]
    claimed = sum(info.size for info in infos)
    if claimed > size:
        raise ValueError(f"{dataset.name}: its chunks claim {claimed} bytes, in a file of {size} bytes")
    if DEFLATE not in filters:
        return
    for info in infos:
        if info.filter_mask >> filters.index(DEFLATE) & 1:
            continue  # it did not shrink and stands as it was
        _, packed = dataset.id.read_direct_chunk(info.chunk_offset)
        try:
            unpacked = zlib.decompressobj().decompress(packed, whole + 2 * CHECKSUMS)
        except zlib.error as error:
            raise ValueError(f"{dataset.name}: a damaged chunk: {error}") from None
        if len(unpacked) > whole + CHECKSUMS:
            raise ValueError(f"{dataset.name}: a chunk unpacks to more than its {whole} bytes")


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")
