"""numba-cuda's compiler without a driver, on the path of a real launch: NVVM, LTO-IR, nvJitLink."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:  # the CUDA package may need what `why_not` looks for
    from gpurnn_kernels.cuda.host.device import Kernel

Capability = tuple[int, int]


def why_not() -> str | None:
    """Why nothing can be compiled here; None when it can. `numba.cuda` alone proves nothing: Numba ships an old one."""
    for module, package in (
        ("numba_cuda", "numba-cuda"),
        ("cuda.core", "cuda-core"),
        ("cuda.bindings.nvjitlink", "cuda-bindings"),
    ):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"{package} is not installed: pip install 'gpurnn[test]' on Linux x86-64 brings it"
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        for library in ("nvvm", "nvJitLink"):
            load_nvidia_dynamic_lib(library)
    except Exception as error:  # its errors differ between versions
        return f"NVIDIA's compiler libraries do not load ({error})"
    return None


@contextmanager
def capability(cc: Capability) -> Iterator[None]:
    """Inside, numba-cuda believes that the current device has this compute capability."""
    from numba.cuda import api, codegen, dispatcher

    device = SimpleNamespace(compute_capability=cc)
    context = SimpleNamespace(device=device)
    with (
        mock.patch.object(dispatcher, "get_current_device", return_value=device),
        mock.patch.object(api, "get_current_device", return_value=device),
        mock.patch.object(codegen, "devices", SimpleNamespace(get_context=lambda *_: context)),
    ):
        yield


class Compiled:
    """A kernel's code for a compute capability."""

    def __init__(self, kernel: "Kernel", cc: Capability) -> None:
        from numba.cuda.codegen import CUDACodeLibrary
        from numba.cuda.dispatcher import _Kernel

        from gpurnn_kernels.cuda.compiler import jit_options

        from .table import DEVICES

        unused = mock.patch.object(CUDACodeLibrary, "get_asm_str", return_value="")  # compiles once more, to look for calls
        threads = {limits.compute_capability: limits.threads_per_multiprocessor for limits in DEVICES.values()}
        options = jit_options(kernel, threads[cc])
        with capability(cc), unused:
            made = _Kernel(kernel.function, kernel.signature, **options)
        self.entry: str = made.entry_name
        self._library = made._codelibrary
        self._full = (*cc, "a" if cc >= (9, 0) else "")  # as at a real launch

    @cached_property
    def ptx(self) -> str:
        """After link-time optimisation: what is assembled."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Not adding .*cudadevrt")  # what calls it is interpreted
            text: str = self._library.get_lto_ptx(cc=self._full)
        return text.rstrip("\0")

    @cached_property
    def cubin(self) -> bytes:
        return bytes(self._library.get_cubin(cc=self._full).code)


@cache
def compiled(kernel: "Kernel", cc: Capability) -> Compiled:
    """Each is made once a process."""
    return Compiled(kernel, cc)
