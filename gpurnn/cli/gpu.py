"""The search for a GPU that gpurnn can use."""

from importlib.util import find_spec


def missing() -> str | None:
    """Tells in one line what is missing to run on a GPU; None if nothing is."""
    if find_spec("gpurnn_kernels.cuda") is None:
        return "this version of gpurnn has no CUDA kernels"
    for module, package in ("cupy", "CuPy"), ("numba_cuda", "numba-cuda"):
        if find_spec(module) is None:
            return f"{package} is not installed: pip install 'gpurnn[cuda12]' or 'gpurnn[cuda13]', as the driver has it"
    try:
        from cupy.cuda import runtime

        fault = driver_fault(runtime.driverGetVersion(), runtime.runtimeGetVersion())
        if fault:
            return fault
        if not runtime.getDeviceCount():
            return "CUDA sees no device"
        return cublas_fault()
    except Exception as error:  # a driver can fail in any way
        return f"CUDA does not start: {' '.join(str(error).split())}"


def cublas_fault() -> str | None:
    """Tells that cuBLAS is missing, which CuPy looks for where a product, and so a layer's call, first needs it."""
    try:
        from cupy_backends.cuda.libs import cublas  # noqa: F401
    except ImportError as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        return f"cuBLAS is not installed: pip install 'gpurnn[cuda12]' or 'gpurnn[cuda13]', as the driver has it ({reason})"
    return None


def driver_fault(driver: int, built_for: int) -> str | None:
    """Tells why the driver cannot run CuPy; None if it can.

    driver: the latest CUDA that the driver runs, 0 without one; built_for: CuPy's. CUDA counts 12040 for 12.4.
    """
    if driver == 0:
        return "there is no NVIDIA driver"
    runs, needed = driver // 1000, built_for // 1000
    if runs < needed:
        other = f", or pip install 'gpurnn[cuda{runs}]'" if runs >= 12 else ""
        return f"the NVIDIA driver runs CUDA {runs}, CuPy is for CUDA {needed}: update it{other}"
    return None


def name() -> str:
    """Gives the current GPU's name, where none is missing."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return str(properties["name"].decode())
