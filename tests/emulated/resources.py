"""What a compiled kernel takes of a multiprocessor, as `cuobjdump -res-usage` tells."""

import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gpurnn_kernels.cuda.device import Kernel

from .compile import Capability, compiled


class Resources(NamedTuple):
    registers: int  # a thread
    stack: int  # bytes a thread
    shared: int  # static, bytes a block
    local: int  # bytes a thread


def tool(name: str) -> Path:
    """One of NVIDIA's command-line tools, out of its wheel or on the path."""
    from cuda import pathfinder

    found = pathfinder.find_nvidia_binary_utility(name) or shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: pip install nvidia-cuda-{name}")
    return Path(found)


@cache
def resources(kernel: Kernel, cc: Capability) -> Resources:
    code = compiled(kernel, cc)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.cubin)
        file.flush()
        text = subprocess.run([tool("cuobjdump"), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(rf"{re.escape(code.entry)}:\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    if found is None:
        raise ValueError(f"cuobjdump does not tell what {kernel.name} uses:\n{text}")
    return Resources(*map(int, found.groups()))
