"""Is there a GPU that gpurnn can use?"""

from importlib.util import find_spec


def missing() -> str | None:
    """What is missing to run on a GPU, in one line; None if nothing is."""
    if find_spec("gpurnn_kernels.cuda") is None:
        return "this version of gpurnn has no CUDA kernels"
    for module, package in ("cupy", "CuPy"), ("numba_cuda", "numba-cuda"):
        if find_spec(module) is None:
            return f"{package} is not installed: pip install 'gpurnn[cuda12]' or 'gpurnn[cuda13]', as the driver has it"
    try:
        import cupy

        if not cupy.cuda.runtime.getDeviceCount():
            return "CUDA sees no device"
    except Exception as error:  # a driver can fail in any way
        return f"CUDA does not start: {' '.join(str(error).split())}"
    return None


def name() -> str:
    """The current GPU's name, where none is missing."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return str(properties["name"].decode())
