"""The part of a multiprocessor that a compiled kernel takes, as `cuobjdump -res-usage` tells."""

import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .compile import Capability, compiled

if TYPE_CHECKING:
    from gpurnn_kernels.cuda.host.device import Kernel


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


def dumped(cubin: bytes, option: str) -> str:
    """The output of cuobjdump."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool("cuobjdump")), option, file.name]
        path = os.pathsep.join([str(tool("nvdisasm").parent), os.environ.get("PATH", "")])  # cuobjdump starts it
        environment = {**os.environ, "PATH": path}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return found.stdout


@cache
def resources(kernel: "Kernel", cc: Capability) -> Resources:
    code = compiled(kernel, cc)
    text = dumped(code.cubin, "-res-usage")
    found = re.search(rf"{re.escape(code.entry)}:\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    if found is None:
        raise ValueError(f"cuobjdump does not tell what {kernel.name} uses:\n{text}")
    return Resources(*map(int, found.groups()))
