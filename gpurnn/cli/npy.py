"""Arrays in .npy files, some rows at a time: they are read and written, not mapped, so that faults are exceptions."""

import errno
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..atomic import new_file

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]


class Npy:
    """An array in a file that is open, unbuffered."""

    def __init__(self, path: Path, file: Any) -> None:
        """Reads the header. Raises ValueError for a file that is damaged, or ends before its array does."""
        self._path, self._file = path, file
        try:
            self.shape, self._fortran, self.dtype = _header(file)
            self._start = file.tell()
            needed, there = self._bytes(self.shape), os.fstat(file.fileno()).st_size - self._start
            if there < needed:
                raise ValueError(f"{self.dtype} {self.shape} takes {needed:,} bytes, it has {there:,}")
        except Exception as error:  # whatever a damaged header brings about
            raise ValueError(f"{path}: not a readable .npy file: {error}") from None

    def whole(self) -> Array:
        """Reads the array."""
        return self._read(self.shape, [(0, math.prod(self.shape))])

    def rows(self, axis: int, rows: slice) -> Array:
        """Reads the rows from a start to a stop along an axis."""
        shape = (*self.shape[:axis], rows.stop - rows.start, *self.shape[axis + 1 :])
        if self._fortran:  # the transpose lies in C's order
            return self._read(shape, _pieces(self.shape[::-1], len(shape) - 1 - axis, rows))
        return self._read(shape, _pieces(self.shape, axis, rows))

    def _read(self, shape: Shape, pieces: Iterable[tuple[int, int]]) -> Array:
        found, at, item = np.empty(self._bytes(shape), np.uint8), 0, self.dtype.itemsize
        for first, count in pieces:
            self._file.seek(self._start + first * item)
            self._fill(found.data[at : at + count * item])
            at += count * item
        return found.view(self.dtype).reshape(shape, order="F" if self._fortran else "C")

    def _fill(self, memory: memoryview) -> None:
        while memory:
            try:
                count = self._file.readinto(memory)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(self._path)) from None
            if not count:
                raise ValueError(f"{self._path}: it became shorter while it was read")
            memory = memory[count:]

    def _bytes(self, shape: Shape) -> int:
        return math.prod(shape) * self.dtype.itemsize


@contextmanager
def opened(path: Path) -> Iterator[Npy]:
    """Opens a file. Raises OSError, and ValueError for a file of another kind."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: not a regular file")
    with open(path, "rb", buffering=0) as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path}: not a .npy file")
        file.seek(0)
        yield Npy(path, file)


class NewNpy:
    """An array in C's order in a file, being written."""

    def __init__(self, file: BinaryIO, shape: Shape, dtype: np.dtype[Any]) -> None:
        """Writes the header. Raises OSError at once if the disk has no room."""
        self._file, self._shape, self._item = file, shape, dtype.itemsize
        description = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})
        self._start = file.tell()
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, self._start + math.prod(shape) * dtype.itemsize)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):  # else the file system cannot tell
                    raise

    def write(self, axis: int, rows: slice, block: Array) -> None:
        """Writes the rows from a start to a stop along an axis."""
        elements = block.reshape(-1)
        at = 0
        for first, count in _pieces(self._shape, axis, rows):
            self._file.seek(self._start + first * self._item)
            self._file.write(elements[at : at + count].data)
            at += count


@contextmanager
def new_npy(target: Path, shape: Shape, dtype: np.dtype[Any]) -> Iterator[NewNpy]:
    """Gives an array to be written to a file, which takes the target's place at the end; see `new_file`."""
    with new_file(target) as file:
        yield NewNpy(file, shape, dtype)


def _header(file: Any) -> tuple[Shape, bool, np.dtype[Any]]:
    """Reads the shape, whether it is Fortran's order, and the dtype."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"expected version 1.0 or 2.0 of the format, got {version}")
    shape, fortran, dtype = readers[version](file)
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    if dtype.hasobject:
        raise ValueError("it holds Python's objects")
    return shape, fortran, dtype


def _pieces(shape: Shape, axis: int, rows: slice) -> Iterator[tuple[int, int]]:
    """Gives the pieces of an array in C's order that some rows along an axis lie in: first element and count of each."""
    row = math.prod(shape[axis + 1 :])
    if (rows.start, rows.stop) == (0, shape[axis]):
        yield 0, math.prod(shape)
        return
    for outer in range(math.prod(shape[:axis])):
        yield (outer * shape[axis] + rows.start) * row, (rows.stop - rows.start) * row
