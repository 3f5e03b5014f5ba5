"""numba-cuda's compiler without a driver, on the path of a real launch: NVVM, LTO-IR, nvJitLink."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

if TYPE_CHECKING:  # the CUDA package may need what `why_not` looks for
    from gpurnn_kernels.cuda.device import Kernel

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


class Compiled(NamedTuple):
    ptx: str  # after link-time optimisation: what is assembled
    cubin: bytes
    cooperative: bool
    entry: str


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


@cache
def compiled(kernel: "Kernel", cc: Capability) -> Compiled:
    """A kernel's code for a compute capability; each is made once a process."""
    from numba.cuda.dispatcher import _Kernel

    from gpurnn_kernels.cuda.compile import jit_options

    with capability(cc):
        made = _Kernel(kernel.function, kernel.signature, **jit_options(kernel))
        library = made._codelibrary
        library.use_cooperative |= kernel.cooperative
        full = (*cc, "a" if cc >= (9, 0) else "")  # as at a real launch
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Not adding .*cudadevrt")  # what calls it is interpreted
            ptx = library.get_lto_ptx(cc=full).rstrip("\0")
        return Compiled(ptx, bytes(library.get_cubin(cc=full).code), made.cooperative, made.entry_name)
