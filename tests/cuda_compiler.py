"""The one place that says why tests which compile CUDA kernels do not run."""

import pytest
from helpers import missing_compiler

REASON = missing_compiler()
needs_compiler = pytest.mark.skipif(REASON is not None, reason=f"no CUDA compiler: {REASON}")
