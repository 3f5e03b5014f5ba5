"""The one place that says why tests which compile CUDA kernels do not run."""

import pytest

from .compile import why_not

REASON = why_not()
needs_compiler = pytest.mark.skipif(REASON is not None, reason=f"no CUDA compiler: {REASON}")
