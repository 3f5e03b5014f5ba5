"""The seam on a GPU: CuPy's memory pool and cuBLAS handle, numba-cuda's compiler, cuda.core's launches, all on CuPy's current
stream. Nothing here waits for the GPU but `publish`.

Written and checked against the installed libraries on machines without a GPU; not yet run on one.
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import cupy
import numpy as np
from cuda.bindings.driver import CUfunction_attribute
from cuda.core import LaunchConfig, Stream, launch
from cupy.cuda import device as cupy_device
from cupy.cuda import runtime

from ...spec import Array
from ..compiler import compiled, cuda, driver
from .device import DeviceArray, Kernel, Launch, Limits, check_grid
from .launches import flattened

PLAIN_SHARED = 48 * 1024  # bytes of dynamic shared memory that a kernel may have without asking
STREAMS = 64  # that are remembered

_TYPES = {"float32": runtime.CUDA_R_32F, "float64": runtime.CUDA_R_64F, "float16": runtime.CUDA_R_16F}
_SCALARS = {name: np.array([0, 1], name) for name in ("float32", "float64")}  # beta or alpha, by address


_GPUS: dict[int, "CupyDevice"] = {}


def gpu(index: int) -> "CupyDevice":
    """The one `CupyDevice` of a GPU."""
    found = _GPUS.get(index)
    # of two threads that come first, both get the same
    return _GPUS.setdefault(index, CupyDevice(index)) if found is None else found


class Current:
    """A GPU as the thread's current one. CuPy's own context manager leaves a thread without a context where the GPU has the
    number that the thread starts with: `cudaSetDevice` is what makes one."""

    __slots__ = ("_before", "_index")

    def __init__(self, index: int) -> None:
        self._index = index

    def __enter__(self) -> None:
        self._before: int = runtime.getDevice()
        runtime.setDevice(self._index)

    def __exit__(self, *_: object) -> None:
        if self._before != self._index:
            runtime.setDevice(self._before)


class CupyDevice:
    def __init__(self, index: int) -> None:
        self.index = index
        self._device = cupy.cuda.Device(index)
        self._kernels: dict[Kernel, Any] = {}
        self._streams: dict[int, Any] = {}
        self.limits = self._read_limits()

    def _read_limits(self) -> Limits:
        def attribute(number: int) -> int:
            return int(runtime.deviceGetAttribute(number, self.index))

        capability = self._device.compute_capability  # "90"
        return Limits(
            name=runtime.getDeviceProperties(self.index)["name"].decode(),
            compute_capability=(int(capability[:-1]), int(capability[-1])),
            multiprocessors=attribute(runtime.cudaDevAttrMultiProcessorCount),
            threads_per_multiprocessor=attribute(runtime.cudaDevAttrMaxThreadsPerMultiProcessor),
            blocks_per_multiprocessor=attribute(runtime.cudaDevAttrMaxBlocksPerMultiprocessor),
            registers_per_multiprocessor=attribute(runtime.cudaDevAttrMaxRegistersPerMultiprocessor),
            shared_per_multiprocessor=attribute(runtime.cudaDevAttrMaxSharedMemoryPerMultiprocessor),
            shared_per_block=attribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin),
        )

    def current(self) -> AbstractContextManager[Any]:
        return Current(self.index)

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray:
        with Current(self.index):
            return cupy.empty(tuple(shape), dtype)

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray:
        with Current(self.index):
            return cupy.zeros(tuple(shape), dtype)

    def upload(self, array: Array) -> DeviceArray:
        with Current(self.index):
            return cupy.asarray(array)

    def publish(self, *arrays: Array | DeviceArray) -> list[DeviceArray]:
        # a pool would hand the memory on in the order of the stream that it came from; cudaFree waits for all streams
        with Current(self.index), cupy.cuda.using_allocator(None):
            copies = [cupy.array(array, order="C") for array in arrays]
            cupy.cuda.get_current_stream().synchronize()
        return copies

    def address(self, array: DeviceArray) -> int:
        return int(array.data.ptr)

    def multiply(
        self,
        a: DeviceArray,
        b: DeviceArray,
        out: DeviceArray,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
        tf32: bool = False,
    ) -> None:
        from cupy_backends.cuda.libs import cublas

        rows, columns = out.shape
        inner = a.shape[0] if transpose_a else a.shape[1]
        double = out.dtype == np.float64
        compute = cublas.CUBLAS_COMPUTE_64F if double else cublas.CUBLAS_COMPUTE_32F
        if tf32:
            compute = cublas.CUBLAS_COMPUTE_32F_FAST_TF32
        scalars = _SCALARS["float64" if double else "float32"]
        zero, one = scalars.ctypes.data, scalars.ctypes.data + scalars.itemsize
        operations = [cublas.CUBLAS_OP_T if transposed else cublas.CUBLAS_OP_N for transposed in (transpose_b, transpose_a)]
        # cuBLAS counts by columns: it sees transposed matrices, and out^T = b^T a^T
        cublas.gemmEx(
            cupy_device.get_cublas_handle(),
            *operations,
            *(columns, rows, inner),
            one,
            *_matrix(b),
            *_matrix(a),
            one if accumulate else zero,
            *_matrix(out),
            compute,
            cublas.CUBLAS_GEMM_DEFAULT,
        )

    def launcher(self, kernel: Kernel, grid: Sequence[int], *first: Any, shared: int = 0) -> Launch:
        check_grid(kernel, grid)
        if kernel.cooperative:
            held = self.resident_blocks(kernel, shared) * self.limits.multiprocessors
            if int(np.prod(grid)) > held:
                raise RuntimeError(
                    f"{kernel.name}: a grid of {tuple(grid)} blocks that wait for each other, {self.limits.name} holds {held}"
                )
        handle = self._compiled(kernel, shared)._codelibrary.get_cufunc().kernel
        config = LaunchConfig(grid=tuple(grid), block=(kernel.threads,), shmem_size=shared, is_cooperative=kernel.cooperative)
        values, names = flattened(kernel, first)
        kinds = [getattr(ctypes, f"c_{name}") for name in names]
        given = [self.address(value) if isinstance(value, cupy.ndarray) else value for value in values]
        bound = [kind(value) for kind, value in zip(kinds, given, strict=False)]
        varying = kinds[len(values) :]

        def run(*rest: int | float) -> None:
            launch(self._stream(), config, handle, *bound, *(kind(value) for kind, value in zip(varying, rest, strict=True)))

        run.arrays = first  # type: ignore[attr-defined]  # they live as long as the launch
        return run

    def resident_blocks(self, kernel: Kernel, shared: int) -> int:
        with cuda.gpus[self.index]:
            blocks = self._compiled(kernel, shared).max_cooperative_grid_blocks(kernel.threads, shared)
        return int(blocks) // self.limits.multiprocessors

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(runtime.CUDARuntimeError):  # of a capture that the fault has made invalid: it ends all the same
                    stream.end_capture()
                raise
            graph = stream.end_capture()

        def replay() -> None:
            graph.launch(cupy.cuda.get_current_stream())

        replay.work = work  # type: ignore[attr-defined]  # its arrays live as long as the graph
        return replay

    def _compiled(self, kernel: Kernel, shared: int) -> Any:
        """numba-cuda's kernel, loaded on this GPU, and allowed as much dynamic shared memory."""
        with cuda.gpus[self.index]:
            found = self._kernels.get(kernel)
            if found is None:
                found = self._kernels[kernel] = compiled(kernel, self.limits.threads_per_multiprocessor)
            if shared > PLAIN_SHARED:
                which = CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                driver.cuKernelSetAttribute(which, shared, found._codelibrary.get_cufunc().handle, self.index)
        return found

    def _stream(self) -> Any:
        """CuPy's current stream, as cuda.core has it."""
        pointer = cupy.cuda.get_current_stream().ptr
        found = self._streams.get(pointer)
        if found is None:
            if len(self._streams) >= STREAMS:
                self._streams.clear()
            found = self._streams[pointer] = Stream.from_handle(pointer)
        return found


def _matrix(array: DeviceArray) -> tuple[int, int, int]:
    """Address, type, elements from row to row."""
    rows, columns = array.shape
    step = array.strides[0] // array.itemsize if rows > 1 else columns
    return array.data.ptr, _TYPES[array.dtype.name], max(step, 1)
