"""The one file that touches CuPy, numba-cuda's launches and cuda.core, against the installed libraries: what it names exists,
and its calls bind to the signatures that these declare. Needs no GPU."""

import ast
import importlib
import inspect
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ptx_emulator.compile import why_not

for module in ("cupy", "numba_cuda", "cuda"):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed", allow_module_level=True)
if why := why_not():
    pytest.skip(why, allow_module_level=True)

from gpurnn_kernels import cuda as backend  # noqa: E402
from gpurnn_kernels.cuda.host import cupy_device  # noqa: E402
from gpurnn_kernels.cuda.host.device import Device, Kernel  # noqa: E402

FOLDER = Path(str(backend.__file__)).parent
SOURCE = Path(str(cupy_device.__file__))
TREE = ast.parse(SOURCE.read_text(encoding="utf-8"))


def dotted(node: ast.AST) -> str | None:
    """a.b.c as text, if it is nothing but names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{node.attr}"
    return None


def outside() -> dict[str, Any]:
    """The file's imports from these libraries, by its names there; cuBLAS cannot be imported without its library."""
    found = {}
    for name in ("cupy", "runtime", "cuda", "driver", "LaunchConfig", "Stream", "launch", "CUfunction_attribute"):
        found[name] = getattr(cupy_device, name)
    found["cublas_of"] = cupy_device.cupy_device
    return found


def test_only_one_file_knows_cupy() -> None:
    for path in FOLDER.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path != SOURCE:
            assert not re.search(r"^\s*(import|from) cupy", text, re.MULTILINE), path
            assert not re.search(r"^\s*(import|from) cuda\.", text, re.MULTILINE), path


@pytest.mark.parametrize("version", ["12", "13"])
def test_the_extras_bring_what_the_file_uses(version: str) -> None:
    """On a machine with a driver alone."""
    brings = {
        "cupy": f"cupy-cuda{version}x>=14",  # the first that finds cuBLAS where pip has put it
        "cupy_backends.cuda.libs": f"cuda-toolkit[cublas]=={version}.*",
        "numba": f"numba-cuda[cu{version}]>=0.30",
        "cuda.bindings": f"numba-cuda[cu{version}]>=0.30",
        "cuda.core": "cuda-core>=1.0",  # is_cooperative
    }
    used = {node.module for node in ast.walk(TREE) if isinstance(node, ast.ImportFrom) and not node.level} | {"cupy"}
    needed = {package for module in used for name, package in brings.items() if (module or "").startswith(name)}
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"][f"cuda{version}"]) == needed == set(brings.values())


def test_every_attribute_exists() -> None:
    roots = outside()
    seen = 0
    for node in ast.walk(TREE):
        text = dotted(node)
        root, _, rest = (text or "").partition(".")
        if rest and root in roots and isinstance(node, ast.Attribute):
            value = roots[root]
            for name in rest.split("."):
                if value is roots["driver"] and name == "cuKernelSetAttribute":
                    from cuda.bindings import driver as value  # numba-cuda's driver hands on what the bindings have
                value = getattr(value, name)
            seen += 1
    assert seen > 25


def declared(name: str) -> str:
    """The arguments that a function of CuPy's cuBLAS module declares, from the module's own text."""
    folder = Path(str(importlib.import_module("cupy_backends.cuda.libs").__file__)).parent
    binary = next(folder.glob("cublas*.so")).read_bytes()
    found = re.search(rf"\b{name}\(([^)]*)\)".encode(), binary)
    assert found, name
    return found[1].decode()


def test_the_product_hands_over_what_cublas_declares() -> None:
    arguments = declared("gemmEx").split(", ")
    names = [argument.split()[-1] for argument in arguments]
    expected = "handle transa transb m n k alpha A Atype lda B Btype ldb beta C Ctype ldc computeType algo"
    assert " ".join(names) == expected
    folder = Path(str(importlib.import_module("cupy_backends.cuda.libs").__file__)).parent
    text = next(folder.glob("cublas*.so")).read_bytes()
    for constant in re.findall(r"cublas\.(CUBLAS_\w+)", SOURCE.read_text(encoding="utf-8")):
        assert constant.encode() in text, constant


class Recorder:
    """In the place of CuPy's cuBLAS: what `gemmEx` was given."""

    CUBLAS_OP_N, CUBLAS_OP_T = "N", "T"
    CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 = "32", "64", "tf32"
    CUBLAS_GEMM_DEFAULT = -1

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def gemmEx(self, *arguments: Any) -> None:
        self.calls.append(arguments)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
def test_the_product_is_the_product(
    dtype: str, transpose_a: bool, transpose_b: bool, accumulate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments give what cuBLAS would make of them, by its definition: column-major, C = alpha op(A) op(B) + beta C."""
    import ctypes
    import sys
    from types import ModuleType

    import numpy as np

    recorder = Recorder()
    module = ModuleType("cupy_backends.cuda.libs")
    module.cublas = recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", module)
    monkeypatch.setattr(cupy_device.cupy_device, "get_cublas_handle", lambda: 0)
    rng = np.random.default_rng(0)
    M, N, K = 3, 5, 4

    class Pointed(np.ndarray[Any, Any]):
        """NumPy's array with CuPy's address."""

        @property
        def data(self) -> Any:  # type: ignore[override]
            from types import SimpleNamespace

            return SimpleNamespace(ptr=self.ctypes.data)

    def strided(rows: int, columns: int) -> Any:
        return rng.standard_normal((rows, columns + 3)).astype(dtype).view(Pointed)[:, 1 : columns + 1]

    a, b, out = strided(*((K, M) if transpose_a else (M, K))), strided(*((N, K) if transpose_b else (K, N))), strided(M, N)
    device = object.__new__(cupy_device.CupyDevice)
    device.multiply(a, b, out, transpose_a=transpose_a, transpose_b=transpose_b, accumulate=accumulate)
    ((_, op_1, op_2, m, n, k, alpha, A, A_type, lda, B, B_type, ldb, beta, C, C_type, ldc, compute, _),) = recorder.calls
    assert A_type == B_type == C_type == cupy_device._TYPES[dtype]
    assert compute == ("64" if dtype == "float64" else "32")
    kind = ctypes.c_float if dtype == "float32" else ctypes.c_double

    def columns(address: int, leading: int, rows: int, count: int) -> Any:
        flat = np.ctypeslib.as_array((kind * (leading * (count - 1) + rows)).from_address(address))
        return np.lib.stride_tricks.as_strided(flat, (rows, count), (flat.itemsize, leading * flat.itemsize))

    left = columns(A, lda, m, k) if op_1 == "N" else columns(A, lda, k, m).T
    right = columns(B, ldb, k, n) if op_2 == "N" else columns(B, ldb, n, k).T
    found = kind.from_address(alpha).value * left @ right + kind.from_address(beta).value * columns(C, ldc, m, n)
    expected = (a.T if transpose_a else a) @ (b.T if transpose_b else b) + (out if accumulate else 0)
    np.testing.assert_allclose(found.T, expected, rtol=1e-5)


def test_calls_bind_to_what_is_declared() -> None:
    import cupy
    import numpy as np
    from cuda.core import LaunchConfig
    from numba import cuda
    from numba.cuda.dispatcher import CUDADispatcher, _Kernel

    for function in (cupy.empty, cupy.zeros):
        inspect.signature(function).bind((2, 3), np.dtype("float32"))
    inspect.signature(cupy.asarray).bind(np.zeros(3))
    inspect.signature(cuda.jit).bind(launch_bounds=(256, 1), lto=True)
    inspect.signature(CUDADispatcher.compile).bind(None, ())
    inspect.signature(_Kernel.max_cooperative_grid_blocks).bind(None, 256, 0)
    assert {"launch_bounds", "lto"} <= set(inspect.signature(_Kernel.__init__).parameters)
    config = LaunchConfig(grid=(3, 2), block=(256,), shmem_size=1024, is_cooperative=False)
    assert config.grid == (3, 2, 1)
    assert config.block == (256, 1, 1)


def test_it_has_what_the_seam_asks() -> None:
    for name in vars(Device):
        if not name.startswith("_") and name != "limits":
            ours, theirs = (inspect.signature(getattr(owner, name)) for owner in (cupy_device.CupyDevice, Device))
            assert list(ours.parameters) == list(theirs.parameters), name


def test_types_of_arguments_have_their_ctypes() -> None:
    """Launches hand integers over as the C types of a kernel's signature."""
    import ctypes

    import numpy as np

    from gpurnn_kernels.cuda.pointwise.form import Variant
    from gpurnn_kernels.cuda.pointwise.lstm import LstmForward, lstm_forward
    from gpurnn_kernels.cuda.records import scalars

    kernel: Kernel = lstm_forward(Variant(8, 32, 4))
    names = scalars(kernel.signature)
    assert len(names) == len(LstmForward._fields) + 1
    sizes = [ctypes.sizeof(getattr(ctypes, f"c_{name}")) for name in names]
    assert sizes == [np.dtype(name).itemsize for name in names]
